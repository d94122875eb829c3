#include "adapters/formats/peft_config.h"

#include <cmath>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"
#include "adapters/formats/config_fields.h"
#include "adapters/formats/tensor_checks.h"

namespace tenon {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kMaxBaseModelBytes = 1024;  // it is shown, never followed

// Read below, or without effect on what a trained adapter computes.
constexpr absl::string_view kCommonFields[] = {"peft_type",      "base_model_name_or_path",
                                               "revision",       "task_type",
                                               "inference_mode", "peft_version",
                                               "auto_mapping",   "runtime_config"};
constexpr absl::string_view kTargetFields[] = {
    "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "modules_to_save",
    "bias",           "fan_in_fan_out"};

absl::Status ReadLayers(const Json& config, TargetModules* targets) {
  const Json& layers = Field(config, "layers_to_transform");
  const Json& patterns = Field(config, "layers_pattern");
  if (IsUnset(layers) && layers != Json(false)) {
    return IsUnset(patterns)
               ? absl::OkStatus()
               : InvalidConfig("layers_pattern", patterns, "allowed without layers_to_transform");
  }
  if (Field(config, "target_modules").is_string()) {
    return InvalidConfig("layers_to_transform", layers, "allowed when target_modules is a string");
  }
  for (const Json& layer : layers.is_array() ? layers : Json::array({layers})) {
    if (!layer.is_number_unsigned()) {
      return InvalidConfig("layers_to_transform", layer, "a layer number");
    }
    targets->layers.push_back(layer.get<int64_t>());
  }
  std::vector<std::string> texts;
  if (patterns.is_string()) {
    texts.push_back(patterns.get<std::string>());
  } else if (patterns.is_array()) {
    TENON_ASSIGN_OR_RETURN(texts, CheckStrings("layers_pattern", patterns));
  } else if (!patterns.is_null()) {
    return InvalidConfig("layers_pattern", patterns, "a string or a list of strings");
  }
  if (IsUnset(patterns)) {  // the first number in the path
    TENON_ASSIGN_OR_RETURN(PythonRegex first_number,
                           PythonRegex::Create("layers_pattern", R"(.*?\.[^.]*\.(?P<idx>\d+)\.)"));
    targets->layer_patterns.push_back(std::move(first_number));
    return absl::OkStatus();
  }
  for (const std::string& text : texts) {
    TENON_ASSIGN_OR_RETURN(
        PythonRegex pattern,
        PythonRegex::Create("layers_pattern", text, R"((?:^|.*?\.))", R"(\.(?P<idx>\d+)\.)"));
    targets->layer_patterns.push_back(std::move(pattern));
  }
  return absl::OkStatus();
}

absl::StatusOr<TargetModules> ReadTargets(const Json& config) {
  TargetModules targets;
  const Json& names = Field(config, "target_modules");
  if (names.is_null() || (names.is_array() && names.empty())) {
    return InvalidConfig("target_modules", names, "a list of module names or a regular expression");
  }
  if (names.is_string() && absl::EqualsIgnoreCase(names.get<std::string>(), "all-linear")) {
    targets.all_linear = true;
  } else {
    TENON_ASSIGN_OR_RETURN(targets.names, ReadModuleNames("target_modules", names));
  }
  if (const Json& excluded = Field(config, "exclude_modules"); !IsUnset(excluded)) {
    TENON_ASSIGN_OR_RETURN(targets.excluded, ReadModuleNames("exclude_modules", excluded));
  }
  TENON_RETURN_IF_ERROR(ReadLayers(config, &targets));
  return targets;
}

absl::Status ReadBias(const Json& config, absl::string_view bias_name, PeftConfig* peft) {
  const Json& bias = Field(config, "bias");
  if (IsUnset(bias) || bias == Json("none")) {
    return absl::OkStatus();
  }
  if (!bias_name.empty() && bias == Json(std::string(bias_name))) {
    peft->bias = PeftBias::kTargets;
  } else if (!bias_name.empty() && bias == Json("all")) {
    peft->bias = PeftBias::kAll;
  } else {
    return UnsupportedConfig("bias", bias);
  }
  return absl::OkStatus();
}

absl::Status ReadModulesToSave(const Json& config, PeftConfig* peft) {
  const Json& modules = Field(config, "modules_to_save");
  if (IsUnset(modules)) {
    return absl::OkStatus();
  }
  TENON_ASSIGN_OR_RETURN(peft->modules_to_save, CheckStrings("modules_to_save", modules));
  for (const std::string& module : peft->modules_to_save) {
    if (!IsEmbeddingModule(module) && !IsHeadModule(module)) {
      return UnsupportedConfig("modules_to_save", modules,
                               "full copies are served of the token embedding (embed_tokens, wte) "
                               "and the head (lm_head) only");
    }
  }
  return absl::OkStatus();
}

absl::Status ReadPatterns(const Json& config, int64_t max_rank, PeftRanks* result) {
  for (const char* name : {"rank_pattern", "alpha_pattern"}) {
    const Json& patterns = Field(config, name);
    if (!patterns.is_null() && !patterns.is_object()) {
      return InvalidConfig(name, patterns, "an object");
    }
    const bool is_rank = absl::string_view(name) == "rank_pattern";
    for (const auto& [pattern, value] : patterns.items()) {
      const std::string field = absl::StrCat(name, "[", Quoted(pattern), "]");
      if (is_rank) {
        TENON_ASSIGN_OR_RETURN(const int64_t rank, CheckCount(field, value, max_rank,
                                                              "max_adapter_rank", "RANK_LIMIT"));
        TENON_RETURN_IF_ERROR(result->ranks.Add(name, pattern, static_cast<double>(rank)));
      } else {
        TENON_ASSIGN_OR_RETURN(const double alpha, CheckFactor(field, value));
        TENON_RETURN_IF_ERROR(result->alphas.Add(name, pattern, alpha));
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace

int64_t PeftRanks::RankOf(absl::string_view module) const {
  return static_cast<int64_t>(ranks.Find(module).value_or(static_cast<double>(rank)));
}

double PeftRanks::ScalingOf(absl::string_view module) const {
  const double r = static_cast<double>(RankOf(module));
  return alphas.Find(module).value_or(alpha) / (use_rslora ? std::sqrt(r) : r);
}

absl::StatusOr<ModuleNames> ReadModuleNames(absl::string_view name, const Json& value) {
  if (value.is_array()) {
    TENON_ASSIGN_OR_RETURN(std::vector<std::string> suffixes, CheckStrings(name, value));
    return ModuleNames(std::move(suffixes));
  }
  if (!value.is_string()) {
    return InvalidConfig(name, value, "a list of module names or a regular expression");
  }
  TENON_ASSIGN_OR_RETURN(PythonRegex regex, PythonRegex::Create(name, value.get<std::string>()));
  return ModuleNames(std::move(regex));
}

absl::StatusOr<PeftConfig> ReadPeftConfig(const Json& config,
                                          std::span<const absl::string_view> known_fields,
                                          bool has_targets, absl::string_view bias_name) {
  TENON_RETURN_IF_ERROR(
      has_targets ? CheckNoOtherFields(config, {kCommonFields, kTargetFields, known_fields})
                  : CheckNoOtherFields(config, {kCommonFields, known_fields}));
  PeftConfig peft;
  if (const Json& base = Field(config, "base_model_name_or_path"); base.is_string()) {
    peft.base_model = base.get<std::string>();
    if (peft.base_model.size() > kMaxBaseModelBytes) {
      return InvalidConfig("base_model_name_or_path", base,
                           absl::StrCat("at most ", kMaxBaseModelBytes, " bytes long"));
    }
  }
  if (has_targets) {
    TENON_RETURN_IF_ERROR(ReadBias(config, bias_name, &peft));
    TENON_RETURN_IF_ERROR(ReadModulesToSave(config, &peft));
    TENON_ASSIGN_OR_RETURN(peft.targets, ReadTargets(config));
    // GPT-2's layers keep [in, out]; PEFT sets the field for them and stores the same tensors.
    TENON_RETURN_IF_ERROR(ReadBool(config, "fan_in_fan_out").status());
  }
  return peft;
}

absl::StatusOr<PeftRanks> ReadPeftRanks(const Json& config, absl::string_view alpha_name,
                                        const AdapterLimits& limits) {
  PeftRanks result;
  TENON_ASSIGN_OR_RETURN(result.rank, CheckCount("r", Field(config, "r"), limits.max_rank,
                                                 "max_adapter_rank", "RANK_LIMIT"));
  TENON_ASSIGN_OR_RETURN(result.alpha, CheckFactor(alpha_name, Field(config, alpha_name)));
  TENON_RETURN_IF_ERROR(ReadPatterns(config, limits.max_rank, &result));
  return result;
}

}  // namespace tenon
