/* The C ABI between server/tokenizer and the Rust crate in rust/, which wraps the Hugging Face
 * tokenizers and the MiniJinja template engine.
 *
 * Contract of every function that returns a code:
 *  - 0 (TENON_OK): `*out` is set, `*error` is untouched.
 *  - otherwise: `*error` holds a UTF-8 message that the caller frees with tenon_bytes_free(), and
 *    `*out` is untouched.
 *  - A panic inside is caught and reported as TENON_PANIC.
 * Input pointers are borrowed for the call and may be null when their size is 0; all others are
 * never null. Objects are immutable once created: any number of threads may use one. */
#ifndef TENON_SERVER_TOKENIZER_TENON_TOKENIZER_H_
#define TENON_SERVER_TOKENIZER_TENON_TOKENIZER_H_

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum tenon_code {
  TENON_OK = 0,
  TENON_INVALID_UTF8 = 1, /* a text is not UTF-8 */
  TENON_MALFORMED = 2,    /* a tokenizer.json, template or JSON argument does not parse */
  TENON_RAISED = 3,       /* the template called raise_exception(); the message is its argument */
  TENON_LIMIT = 4,        /* the template ran too long or wrote too much */
  TENON_FAILED = 5,       /* any other error of the library */
  TENON_PANIC = 6,        /* a bug of the library */
};

typedef struct tenon_tokenizer tenon_tokenizer;
typedef struct tenon_chat_template tenon_chat_template;

/* Owned by the caller; given back to tenon_bytes_free(). Not null-terminated. */
typedef struct tenon_bytes {
  uint8_t* data;
  size_t size;
} tenon_bytes;

/* Owned by the caller; given back to tenon_ids_free(). */
typedef struct tenon_ids {
  int32_t* data;
  size_t size;
} tenon_ids;

/* Both take a zero-filled value as nothing. */
void tenon_bytes_free(tenon_bytes bytes);
void tenon_ids_free(tenon_ids ids);

/* From the bytes of a tokenizer.json. Its truncation and padding settings are ignored. */
int32_t tenon_tokenizer_create(const uint8_t* json, size_t json_size, tenon_tokenizer** out,
                               tenon_bytes* error);
void tenon_tokenizer_free(tenon_tokenizer* tokenizer);

/* add_special_tokens: adds what the post-processor puts around a text. Special tokens written in
 * the text are recognised either way. */
int32_t tenon_tokenizer_encode(const tenon_tokenizer* tokenizer, const uint8_t* text,
                               size_t text_size, bool add_special_tokens, tenon_ids* out,
                               tenon_bytes* error);

/* UTF-8; bytes that form no character appear as U+FFFD. Ids outside the vocabulary are skipped. */
int32_t tenon_tokenizer_decode(const tenon_tokenizer* tokenizer, const int32_t* ids, size_t num_ids,
                               bool skip_special_tokens, tenon_bytes* out, tenon_bytes* error);

/* The text of one token in the middle of a text; empty for an id outside the vocabulary. */
int32_t tenon_tokenizer_token(const tenon_tokenizer* tokenizer, int32_t id, tenon_bytes* out,
                              tenon_bytes* error);

/* The id of a token by its exact name; -1 when there is none. */
int32_t tenon_tokenizer_token_id(const tenon_tokenizer* tokenizer, const uint8_t* token,
                                 size_t token_size, int32_t* out, tenon_bytes* error);

/* One more than the largest id. */
int32_t tenon_tokenizer_vocab_size(const tenon_tokenizer* tokenizer);
bool tenon_tokenizer_is_special(const tenon_tokenizer* tokenizer, int32_t id);

/* `variables_json`: an object of constants for the template, e.g. {"bos_token": "<s>"}. */
int32_t tenon_chat_template_create(const uint8_t* source, size_t source_size,
                                   const uint8_t* variables_json, size_t variables_size,
                                   tenon_chat_template** out, tenon_bytes* error);
void tenon_chat_template_free(tenon_chat_template* chat_template);

/* `messages_json`: an array of {"role": ..., "content": ...}. `now_unix_s` is what the template's
 * strftime_now() formats, in UTC. Instructions, recursion and output are bounded. */
int32_t tenon_chat_template_render(const tenon_chat_template* chat_template,
                                   const uint8_t* messages_json, size_t messages_size,
                                   bool add_generation_prompt, int64_t now_unix_s,
                                   size_t max_output_bytes, tenon_bytes* out, tenon_bytes* error);

#ifdef __cplusplus
}
#endif

#endif /* TENON_SERVER_TOKENIZER_TENON_TOKENIZER_H_ */
