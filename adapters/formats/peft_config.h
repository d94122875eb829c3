// What the adapter_config.json of every PEFT method has in common.
#ifndef TENON_ADAPTERS_FORMATS_PEFT_CONFIG_H_
#define TENON_ADAPTERS_FORMATS_PEFT_CONFIG_H_

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "adapters/formats/adapter_limits.h"
#include "adapters/formats/peft_patterns.h"
#include "nlohmann/json.hpp"

namespace tenon {

/// Which biases of the base the adapter replaces.
enum class PeftBias { kNone, kTargets, kAll };

/// The fields that several methods share, checked. Move-only.
struct PeftConfig {
  std::string base_model;  ///< base_model_name_or_path, may be empty
  TargetModules targets;   ///< nothing for the methods with virtual tokens
  PeftBias bias = PeftBias::kNone;
  std::vector<std::string> modules_to_save;  ///< name suffixes, each of an embedding or a head
  /// Token indices by module name; an empty name is the token embedding, whatever it is called.
  std::vector<std::pair<std::string, std::vector<int32_t>>> token_indices;
  bool ensure_weight_tying = false;
  std::vector<std::string> warnings;
};

/// r, alpha and what the patterns make of them.
struct PeftRanks {
  int64_t rank = 0;  ///< `r`, 1 to limits.max_rank
  double alpha = 0;  ///< finite
  bool use_rslora = false;
  PatternTable ranks;   ///< rank_pattern; values are whole numbers, 1 to limits.max_rank
  PatternTable alphas;  ///< alpha_pattern

  int64_t RankOf(absl::string_view module) const;
  /// alpha / r, or alpha / sqrt(r) for rsLoRA (arXiv:2312.03732).
  double ScalingOf(absl::string_view module) const;
  int64_t cost() const { return 2 * ranks.cost() + alphas.cost(); }  ///< of matching one byte
};

/// Reads base_model_name_or_path and modules_to_save, and target_modules with all that narrows it
/// when `has_targets`. `bias_name` is the method's own word for "of the target modules"
/// ("lora_only"). INVALID_ARGUMENT, naming the field and its value, when a field is mistyped or out
/// of range (reason INVALID_CONFIG) or asks for something that is not implemented (reason
/// UNSUPPORTED_ADAPTER). Fields in neither the common set nor `known_fields` pass only when they
/// are null, false or empty: a set one may change the result.
absl::StatusOr<PeftConfig> ReadPeftConfig(const nlohmann::ordered_json& config,
                                          std::span<const absl::string_view> known_fields,
                                          bool has_targets, absl::string_view bias_name = "");

/// Reads r, rank_pattern, alpha_pattern and the field called `alpha_name`.
absl::StatusOr<PeftRanks> ReadPeftRanks(const nlohmann::ordered_json& config,
                                        absl::string_view alpha_name, const AdapterLimits& limits);

/// target_modules, exclude_modules or feedforward_modules: a list of suffixes or a regular
/// expression.
absl::StatusOr<ModuleNames> ReadModuleNames(absl::string_view name,
                                            const nlohmann::ordered_json& value);

}  // namespace tenon

#endif  // TENON_ADAPTERS_FORMATS_PEFT_CONFIG_H_
