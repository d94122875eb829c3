// LoRA (arXiv:2106.09685), rsLoRA (arXiv:2312.03732) and DoRA (arXiv:2402.09353).

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "adapters/base/status_macros.h"
#include "adapters/formats/config_fields.h"
#include "adapters/formats/peft_methods.h"
#include "adapters/formats/peft_tensors.h"

namespace tenon {
namespace {

using Json = nlohmann::ordered_json;

constexpr absl::string_view kFields[] = {
    "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "use_dora", "lora_bias",
    "init_lora_weights", "ensure_weight_tying", "trainable_token_indices",
    // Without effect on what a trained adapter computes.
    "lora_dropout", "megatron_core", "qalora_group_size", "loftq_config", "eva_config",
    "corda_config", "lora_ga_config"};
constexpr absl::string_view kLeaves[] = {"lora_A.weight",
                                         "lora_B.weight",
                                         "lora_B.bias",
                                         "lora_magnitude_vector",
                                         "lora_embedding_A",
                                         "lora_embedding_B",
                                         "lora_magnitude_vector.weight"};

struct LoraConfig {
  PeftConfig peft;
  PeftRanks ranks;
  bool use_dora = false;
  bool lora_bias = false;
};

// Initialisations that leave the base weights alone pass; those that subtract the initial delta
// from them do not: the adapter is right only on top of the changed base.
absl::Status CheckInitialisation(const Json& value) {
  if (value.is_null() || value.is_boolean()) {
    return absl::OkStatus();
  }
  const std::string name =
      value.is_string() ? absl::AsciiStrToLower(value.get<std::string>()) : std::string();
  if (name == "gaussian" || name == "eva" || name == "orthogonal" || name == "true") {
    return absl::OkStatus();
  }
  for (absl::string_view changes_base : {"pissa", "corda", "olora", "loftq", "lora_ga"}) {
    if (absl::StartsWith(name, changes_base)) {
      return UnsupportedConfig("init_lora_weights", value,
                               "it changes the base weights; save the adapter with "
                               "path_initial_model_for_weight_conversion to make it a plain LoRA");
    }
  }
  return UnsupportedConfig("init_lora_weights", value);
}

// A list means the token embedding; an object names modules.
absl::Status ReadTokenIndices(const Json& config, const AdapterLimits& limits, PeftConfig* peft) {
  constexpr absl::string_view kField = "trainable_token_indices";
  const Json& value = Field(config, kField);
  if (IsUnset(value)) {
    return absl::OkStatus();
  }
  const size_t limit = static_cast<size_t>(limits.max_token_rows);
  if (!value.is_object()) {
    TENON_ASSIGN_OR_RETURN(std::vector<int32_t> tokens, CheckIndices(kField, value, limit));
    peft->token_indices.emplace_back("", std::move(tokens));
    return absl::OkStatus();
  }
  for (const auto& [module, indices] : value.items()) {
    TENON_ASSIGN_OR_RETURN(std::vector<int32_t> tokens, CheckIndices(kField, indices, limit));
    peft->token_indices.emplace_back(module, std::move(tokens));
  }
  return absl::OkStatus();
}

absl::StatusOr<LoraConfig> ReadLoraConfig(const Json& config, const AdapterLimits& limits) {
  TENON_RETURN_IF_ERROR(CheckInitialisation(Field(config, "init_lora_weights")));
  LoraConfig lora;
  TENON_ASSIGN_OR_RETURN(lora.peft,
                         ReadPeftConfig(config, kFields, /*has_targets=*/true, "lora_only"));
  TENON_ASSIGN_OR_RETURN(lora.ranks, ReadPeftRanks(config, "lora_alpha", limits));
  TENON_ASSIGN_OR_RETURN(lora.ranks.use_rslora, ReadBool(config, "use_rslora"));
  TENON_ASSIGN_OR_RETURN(lora.use_dora, ReadBool(config, "use_dora"));
  TENON_ASSIGN_OR_RETURN(lora.lora_bias, ReadBool(config, "lora_bias"));
  TENON_ASSIGN_OR_RETURN(lora.peft.ensure_weight_tying, ReadBool(config, "ensure_weight_tying"));
  TENON_RETURN_IF_ERROR(ReadTokenIndices(config, limits, &lora.peft));
  return lora;
}

// A tensor that is there exactly when the configuration announces it.
absl::StatusOr<std::optional<TensorView>> ReadAnnounced(const TensorGroup& group,
                                                        absl::string_view leaf, bool announced,
                                                        absl::string_view field, int64_t size) {
  const auto found = group.find(leaf);
  if (found == group.end()) {
    if (announced) {
      return RefuseTensor("UNPAIRED_TENSOR", group.begin()->second.name,
                          absl::StrCat("has no matching ", leaf, ", which ", field, " announces"));
    }
    return std::optional<TensorView>();
  }
  if (!announced) {
    return RefuseTensor("UNEXPECTED_TENSOR", found->second.name,
                        absl::StrCat("is there although ", field, " is not set"));
  }
  TENON_RETURN_IF_ERROR(CheckShape(found->second, {size}));
  return std::optional<TensorView>(found->second.view);
}

absl::StatusOr<LoraModule> BuildModule(const LoraConfig& config, const std::string& module,
                                       const TensorGroup& group, const AdapterLimits& limits) {
  const bool is_embedding =
      group.contains("lora_embedding_A") || group.contains("lora_embedding_B");
  if (is_embedding && (group.contains("lora_A.weight") || group.contains("lora_B.weight"))) {
    return RefuseTensor("DUPLICATE_TENSOR", group.begin()->second.name,
                        "belongs to a module with LoRA both of a linear layer and an embedding");
  }
  TENON_ASSIGN_OR_RETURN(const NamedTensor a,
                         GetTensor(group, is_embedding ? "lora_embedding_A" : "lora_A.weight"));
  TENON_ASSIGN_OR_RETURN(const NamedTensor b,
                         GetTensor(group, is_embedding ? "lora_embedding_B" : "lora_B.weight"));
  TENON_RETURN_IF_ERROR(CheckFloats(a, 2));
  TENON_RETURN_IF_ERROR(CheckFloats(b, 2));
  const int64_t rank = config.ranks.RankOf(module);
  TENON_RETURN_IF_ERROR(CheckTensorRank(a, 0, rank, limits.max_rank));
  TENON_RETURN_IF_ERROR(CheckTensorRank(b, 1, rank, limits.max_rank));
  LoraModule lora;
  lora.module = module;
  lora.a = a.view;
  lora.b = b.view;
  lora.scaling = config.ranks.ScalingOf(module);
  const int64_t out = b.view.shape[0];
  TENON_ASSIGN_OR_RETURN(
      lora.b_bias,
      ReadAnnounced(group, "lora_B.bias", config.lora_bias && !is_embedding, "lora_bias", out));
  const absl::string_view magnitude = group.contains("lora_magnitude_vector.weight")
                                          ? "lora_magnitude_vector.weight"
                                          : "lora_magnitude_vector";
  TENON_ASSIGN_OR_RETURN(lora.magnitude,
                         ReadAnnounced(group, magnitude, config.use_dora, "use_dora", out));
  return lora;
}

}  // namespace

absl::StatusOr<AdapterSpec> ParsePeftLora(const Json& config, const SafetensorsFile& file,
                                          const AdapterLimits& limits) {
  TENON_ASSIGN_OR_RETURN(LoraConfig lora, ReadLoraConfig(config, limits));
  TENON_ASSIGN_OR_RETURN(const PeftTensors tensors, GroupPeftTensors(file, kLeaves));
  TENON_RETURN_IF_ERROR(CheckTargets(tensors, lora.ranks.cost(), &lora.peft));
  AdapterSpec spec;
  LoraSpec body;
  body.modules.reserve(tensors.modules.size());
  for (const auto& [module, group] : tensors.modules) {
    TENON_ASSIGN_OR_RETURN(LoraModule built, BuildModule(lora, module, group, limits));
    body.modules.push_back(std::move(built));
  }
  spec.body = std::move(body);
  TENON_ASSIGN_OR_RETURN(spec.shared, ReadSharedParts(tensors, limits, &lora.peft));
  spec.method = lora.use_dora ? "DORA" : lora.ranks.use_rslora ? "RSLORA" : "LORA";
  spec.base_model = std::move(lora.peft.base_model);
  spec.warnings = std::move(lora.peft.warnings);
  return spec;
}

}  // namespace tenon
