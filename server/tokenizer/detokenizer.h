// IncrementalDetokenizer: the text of a generation, piece by piece as its tokens come.
#ifndef TENON_SERVER_TOKENIZER_DETOKENIZER_H_
#define TENON_SERVER_TOKENIZER_DETOKENIZER_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/tokenizer/tokenizer.h"

namespace tenon {

/// Turns a stream of token ids into a stream of text. Each piece is whole UTF-8 characters, and all
/// pieces together are Tokenizer::Decode() of all ids.
///
/// A token alone has no text: its bytes may begin or end inside a character, and decoders treat the
/// first token of a text specially. So a window of tokens is decoded: the context, whose text is
/// out already, and the new ones. The window's text beyond the context's is new. While it ends in
/// U+FFFD, a character may be incomplete and everything new is held back; otherwise the new tokens
/// become the context of the next ones. (The idea is that of the prefix and read offsets in
/// Hugging Face's text-generation-inference.)
///
/// Exception: a tokenizer with byte fallback (Llama 2) decodes a whole run of byte tokens to U+FFFD
/// as soon as one byte of it is wrong, also those whose text is out. The pieces then keep the
/// characters that were right.
///
/// Not thread-safe; one per sequence. `tokenizer` is borrowed.
class IncrementalDetokenizer {
 public:
  explicit IncrementalDetokenizer(const Tokenizer* tokenizer, bool skip_special_tokens = true)
      : tokenizer_(tokenizer), skip_special_tokens_(skip_special_tokens) {}

  /// The text that `id` completes; often empty inside a character of several tokens.
  absl::StatusOr<std::string> Append(int32_t id);

  /// What is held back, after the last token: U+FFFD for bytes that never became a character.
  absl::StatusOr<std::string> Flush();

 private:
  std::string NewText(absl::string_view window_text) const;
  absl::StatusOr<std::string> ReleaseBroken(absl::string_view window_text);

  const Tokenizer* tokenizer_;
  const bool skip_special_tokens_;
  std::vector<int32_t> window_;    // the context, then the tokens whose text is held back
  size_t num_context_tokens_ = 0;  // of window_
  size_t num_emitted_bytes_ = 0;   // of the window's text, that are out; the context's at least
  size_t release_at_tokens_ = 0;   // window size at which ReleaseBroken() tries next; 0: not yet
};

}  // namespace tenon

#endif  // TENON_SERVER_TOKENIZER_DETOKENIZER_H_
