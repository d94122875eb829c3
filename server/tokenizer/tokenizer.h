// Tokenizer: text to token ids and back, and conversations to prompts, as the model was trained.
#ifndef TENON_SERVER_TOKENIZER_TOKENIZER_H_
#define TENON_SERVER_TOKENIZER_TOKENIZER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "server/tokenizer/tenon_tokenizer.h"

namespace tenon {

/// One turn of a conversation.
struct ChatTurn {
  std::string role;
  std::string content;
};

struct TokenizerOptions {
  /// Longest text that Encode() takes, and longest prompt that RenderChat() makes, in bytes.
  /// Checked first: encoding costs up to a second a MiB, also of one endless word (measured).
  int64_t max_text_bytes = int64_t{1} << 20;
  /// What a chat template sees as today.
  std::function<absl::Time()> clock = [] { return absl::Now(); };
};

/// The tokenizer and the chat template of one model folder.
///
/// Thread-safe: immutable after Load().
///
///   TENON_ASSIGN_OR_RETURN(auto tokenizer, Tokenizer::Load("/models/smollm2"));
///   TENON_ASSIGN_OR_RETURN(auto prompt, tokenizer->RenderChat({{"user", "Hello"}}, true));
///   TENON_ASSIGN_OR_RETURN(auto ids, tokenizer->Encode(prompt, /*add_special_tokens=*/false));
class Tokenizer {
 public:
  /// Reads tokenizer.json, which must be there, and the files of ReadTokenizerConfig().
  /// NOT_FOUND or INVALID_ARGUMENT, naming the file.
  static absl::StatusOr<std::unique_ptr<Tokenizer>> Load(const std::string& folder,
                                                         TokenizerOptions options = {});
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;

  /// Token ids of `text` (UTF-8). Special tokens written in it are recognised. `add_special_tokens`
  /// adds what the model expects around a text, such as a beginning-of-sequence token; a rendered
  /// chat brings its own and must not get them again.
  /// INVALID_ARGUMENT over a limit of the options or for text that is not UTF-8.
  absl::StatusOr<std::vector<int32_t>> Encode(absl::string_view text,
                                              bool add_special_tokens) const;

  /// Text of `ids`. Bytes that form no character appear as U+FFFD; ids outside the vocabulary are
  /// skipped, and special tokens too if asked for.
  absl::StatusOr<std::string> Decode(std::span<const int32_t> ids, bool skip_special_tokens) const;

  /// The text that the token adds to a text; its name if it is special; empty if there is none.
  std::string TokenText(int32_t id) const;

  /// The prompt for a conversation. Encode it without adding special tokens.
  /// FAILED_PRECONDITION when the model has no chat template; INVALID_ARGUMENT when the template
  /// refuses the conversation or the prompt is too long.
  absl::StatusOr<std::string> RenderChat(const std::vector<ChatTurn>& turns,
                                         bool add_generation_prompt) const;

  bool has_chat_template() const { return chat_template_ != nullptr; }
  /// One more than the largest token id.
  int32_t vocab_size() const { return vocab_size_; }
  bool is_special(int32_t id) const;
  /// The id of a token by its exact name.
  std::optional<int32_t> FindToken(absl::string_view name) const;
  std::optional<int32_t> bos_token_id() const { return bos_token_id_; }
  std::optional<int32_t> eos_token_id() const { return eos_token_id_; }
  std::optional<int32_t> pad_token_id() const { return pad_token_id_; }

 private:
  struct FreeTokenizer {
    void operator()(tenon_tokenizer* tokenizer) const { tenon_tokenizer_free(tokenizer); }
  };
  struct FreeChatTemplate {
    void operator()(tenon_chat_template* chat) const { tenon_chat_template_free(chat); }
  };
  using TokenizerHandle = std::unique_ptr<tenon_tokenizer, FreeTokenizer>;
  using ChatTemplateHandle = std::unique_ptr<tenon_chat_template, FreeChatTemplate>;

  /// What add_bos_token of tokenizer_config.json changes in the result of tokenizer.json.
  enum class BosCorrection { kNone, kPrepend, kDrop };

  Tokenizer(TokenizerOptions options, TokenizerHandle tokenizer);
  absl::StatusOr<std::vector<int32_t>> EncodeUnchecked(absl::string_view text,
                                                       bool add_special_tokens) const;
  absl::Status ChooseBosCorrection(std::optional<bool> add_bos_token);

  const TokenizerOptions options_;
  const TokenizerHandle tokenizer_;
  const int32_t vocab_size_;
  ChatTemplateHandle chat_template_;  // null when the model has none
  std::optional<int32_t> bos_token_id_, eos_token_id_, pad_token_id_;
  BosCorrection bos_correction_ = BosCorrection::kNone;
};

}  // namespace tenon

#endif  // TENON_SERVER_TOKENIZER_TOKENIZER_H_
