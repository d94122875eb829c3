// TokenizerConfig: what the small files of a Hugging Face model folder say beside tokenizer.json.
#ifndef TENON_SERVER_TOKENIZER_TOKENIZER_CONFIG_H_
#define TENON_SERVER_TOKENIZER_TOKENIZER_CONFIG_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "absl/status/statusor.h"

namespace tenon {

struct TokenizerConfig {
  /// "bos_token", "eos_token", "pad_token", "unk_token" and their like -> the token's text.
  std::map<std::string, std::string> special_tokens;
  /// Set only when tokenizer_config.json says so; else tokenizer.json alone decides.
  std::optional<bool> add_bos_token;
  std::optional<std::string> chat_template;
};

/// Reads tokenizer_config.json, special_tokens_map.json and chat_template.jinja from `folder`; each
/// may be missing. tokenizer_config.json wins over special_tokens_map.json, and chat_template.jinja
/// over both; of several named templates the one called "default" counts.
/// INVALID_ARGUMENT names the file that does not parse.
absl::StatusOr<TokenizerConfig> ReadTokenizerConfig(const std::string& folder);

/// The bytes of a file. NOT_FOUND, or INVALID_ARGUMENT over `max_bytes`.
absl::StatusOr<std::string> ReadFile(const std::string& path, int64_t max_bytes);

}  // namespace tenon

#endif  // TENON_SERVER_TOKENIZER_TOKENIZER_CONFIG_H_
