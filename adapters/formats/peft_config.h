// PeftConfig: PEFT's adapter_config.json, as far as it decides what the adapter computes.
#ifndef TENON_ADAPTERS_FORMATS_PEFT_CONFIG_H_
#define TENON_ADAPTERS_FORMATS_PEFT_CONFIG_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "adapters/formats/adapter_limits.h"
#include "adapters/formats/peft_patterns.h"
#include "nlohmann/json.hpp"

namespace tenon {

/// A LoRA configuration, checked. Move-only.
struct PeftLoraConfig {
  std::string base_model;  ///< base_model_name_or_path, may be empty
  bool use_rslora = false;
  int64_t rank = 0;  ///< `r`, 1 to limits.max_rank
  double alpha = 0;  ///< `lora_alpha`, finite
  TargetModules targets;
  PatternTable ranks;   ///< rank_pattern; values are whole numbers, 1 to limits.max_rank
  PatternTable alphas;  ///< alpha_pattern
  std::vector<std::string> warnings;

  int64_t RankOf(absl::string_view module) const;
  /// alpha / r, or alpha / sqrt(r) for rsLoRA (arXiv:2312.03732).
  double ScalingOf(absl::string_view module) const;
};

/// Reads the JSON object of an adapter_config.json whose peft_type is LORA. INVALID_ARGUMENT,
/// naming the field and its value, when a field is missing, mistyped or out of range (reason
/// INVALID_CONFIG), or asks for something that is not implemented (reason UNSUPPORTED_ADAPTER).
/// Fields that this version does not know pass only when they are null, false or empty: a set one
/// may change the result.
absl::StatusOr<PeftLoraConfig> ParsePeftLoraConfig(const nlohmann::ordered_json& config,
                                                   const AdapterLimits& limits);

}  // namespace tenon

#endif  // TENON_ADAPTERS_FORMATS_PEFT_CONFIG_H_
