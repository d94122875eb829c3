// GenerationConfig: the defaults that a model's authors give for sampling.
#ifndef TENON_SERVER_MODEL_GENERATION_CONFIG_H_
#define TENON_SERVER_MODEL_GENERATION_CONFIG_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace tenon {

/// What generation_config.json says. Absent fields were not given there.
struct GenerationConfig {
  std::vector<int32_t> eos_token_ids;  ///< empty when not given: the model config's hold
  std::optional<int32_t> bos_token_id;
  std::optional<int32_t> pad_token_id;
  std::optional<bool> do_sample;  ///< false: greedy unless a request says otherwise
  std::optional<float> temperature;
  std::optional<float> top_p;
  std::optional<float> min_p;
  std::optional<int32_t> top_k;
  std::optional<float> repetition_penalty;
  /// Fields that transformers would follow and this server does not, for one line in the log.
  std::vector<std::string> ignored_fields;
};

/// Parses the file. INVALID_ARGUMENT, naming the field, when a value is out of its range.
absl::StatusOr<GenerationConfig> ParseGenerationConfig(absl::string_view json_text,
                                                       int64_t vocab_size);

}  // namespace tenon

#endif  // TENON_SERVER_MODEL_GENERATION_CONFIG_H_
