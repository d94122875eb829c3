#include "adapters/formats/peft_config.h"

#include <cmath>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"
#include "adapters/formats/checked_json.h"

namespace tenon {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kMaxBaseModelBytes = 1024;  // it is shown, never followed

// Fields of PEFT 0.21's LoraConfig that this reader interprets.
const absl::flat_hash_set<absl::string_view>& KnownFields() {
  static const auto* const kFields = new absl::flat_hash_set<absl::string_view>{
      "peft_type", "base_model_name_or_path", "r", "lora_alpha", "target_modules",
      "exclude_modules", "rank_pattern", "alpha_pattern", "use_rslora", "bias",
      "layers_to_transform", "layers_pattern", "fan_in_fan_out", "init_lora_weights", "use_dora",
      "modules_to_save", "lora_bias",
      // Without effect on what a trained adapter computes.
      "revision", "task_type", "inference_mode", "peft_version", "auto_mapping", "lora_dropout",
      "runtime_config", "megatron_core", "qalora_group_size", "loftq_config", "eva_config",
      "corda_config", "lora_ga_config", "ensure_weight_tying"};
  return *kFields;
}

absl::Status Invalid(absl::string_view field, const Json& value, absl::string_view wanted) {
  return InvalidAdapterError("INVALID_CONFIG", field,
                             absl::StrCat("adapter_config.json: ", field, " is ", QuotedJson(value),
                                          ", which is not ", wanted));
}

absl::Status Unsupported(absl::string_view field, const Json& value, absl::string_view hint) {
  return InvalidAdapterError(
      "UNSUPPORTED_ADAPTER", field,
      absl::StrCat("adapter_config.json: ", Quoted(field), " is ", QuotedJson(value),
                   ", which is not supported", hint.empty() ? "" : "; ", hint));
}

// The field's value; null when it is absent.
const Json& Field(const Json& config, const char* name) {
  static const Json* const kNull = new Json;
  const auto position = config.find(name);
  return position == config.end() ? *kNull : *position;
}

bool IsUnset(const Json& value) {
  return value.is_null() || value == Json(false) ||
         ((value.is_string() || value.is_structured()) && value.empty()) ||
         (value.is_string() && value.get_ref<const std::string&>().empty());
}

absl::StatusOr<bool> ReadBool(const Json& config, const char* name) {
  const Json& value = Field(config, name);
  if (value.is_null()) {
    return false;
  }
  if (!value.is_boolean()) {
    return Invalid(name, value, "true or false");
  }
  return value.get<bool>();
}

absl::StatusOr<int64_t> CheckRank(absl::string_view field, const Json& value, int64_t max_rank) {
  if (!value.is_number_integer() || (!value.is_number_unsigned() && value.get<int64_t>() < 1) ||
      value.get<uint64_t>() == 0) {
    return Invalid(field, value, "a whole number from 1 on");
  }
  if (value.get<uint64_t>() > static_cast<uint64_t>(max_rank)) {
    return InvalidAdapterError(
        "RANK_LIMIT", field,
        absl::StrCat("adapter_config.json: ", field, " ", value.get<uint64_t>(),
                     " exceeds the limit of ", max_rank, " (max_rank)"));
  }
  return value.get<int64_t>();
}

absl::StatusOr<double> CheckAlpha(absl::string_view field, const Json& value) {
  if (!value.is_number() || !std::isfinite(value.get<double>()) ||
      std::abs(value.get<double>()) > 1e6) {
    return Invalid(field, value, "a number within 1e6 of zero");
  }
  return value.get<double>();
}

absl::StatusOr<std::vector<std::string>> ReadStrings(const char* name, const Json& value) {
  std::vector<std::string> strings;
  for (const Json& item : value) {
    if (!item.is_string()) {
      return Invalid(name, item, "a string");
    }
    strings.push_back(item.get<std::string>());
  }
  return strings;
}

// target_modules or exclude_modules: a list of suffixes, a regular expression, or null.
absl::StatusOr<ModuleNames> ReadModuleNames(const char* name, const Json& value) {
  if (value.is_array()) {
    TENON_ASSIGN_OR_RETURN(std::vector<std::string> suffixes, ReadStrings(name, value));
    return ModuleNames(std::move(suffixes));
  }
  if (!value.is_string()) {
    return Invalid(name, value, "a list of module names or a regular expression");
  }
  TENON_ASSIGN_OR_RETURN(PythonRegex regex, PythonRegex::Create(name, value.get<std::string>()));
  return ModuleNames(std::move(regex));
}

absl::Status ReadLayers(const Json& config, TargetModules* targets) {
  const Json& layers = Field(config, "layers_to_transform");
  const Json& patterns = Field(config, "layers_pattern");
  if (IsUnset(layers) && layers != Json(false)) {
    return IsUnset(patterns)
               ? absl::OkStatus()
               : Invalid("layers_pattern", patterns, "allowed without layers_to_transform");
  }
  if (Field(config, "target_modules").is_string()) {
    return Invalid("layers_to_transform", layers, "allowed when target_modules is a string");
  }
  for (const Json& layer : layers.is_array() ? layers : Json::array({layers})) {
    if (!layer.is_number_unsigned()) {
      return Invalid("layers_to_transform", layer, "a layer number");
    }
    targets->layers.push_back(layer.get<int64_t>());
  }
  std::vector<std::string> texts;
  if (patterns.is_string()) {
    texts.push_back(patterns.get<std::string>());
  } else if (patterns.is_array()) {
    TENON_ASSIGN_OR_RETURN(texts, ReadStrings("layers_pattern", patterns));
  } else if (!patterns.is_null()) {
    return Invalid("layers_pattern", patterns, "a string or a list of strings");
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
    return Invalid("target_modules", names, "a list of module names or a regular expression");
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

absl::Status ReadPatterns(const Json& config, int64_t max_rank, PeftLoraConfig* lora) {
  for (const char* name : {"rank_pattern", "alpha_pattern"}) {
    const Json& patterns = Field(config, name);
    if (!patterns.is_null() && !patterns.is_object()) {
      return Invalid(name, patterns, "an object");
    }
    const bool is_rank = absl::string_view(name) == "rank_pattern";
    for (const auto& [pattern, value] : patterns.items()) {
      const std::string field = absl::StrCat(name, "[", Quoted(pattern), "]");
      if (is_rank) {
        TENON_ASSIGN_OR_RETURN(const int64_t rank, CheckRank(field, value, max_rank));
        TENON_RETURN_IF_ERROR(lora->ranks.Add(name, pattern, static_cast<double>(rank)));
      } else {
        TENON_ASSIGN_OR_RETURN(const double alpha, CheckAlpha(field, value));
        TENON_RETURN_IF_ERROR(lora->alphas.Add(name, pattern, alpha));
      }
    }
  }
  return absl::OkStatus();
}

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
      return Unsupported("init_lora_weights", value,
                         "it changes the base weights; save the adapter with "
                         "path_initial_model_for_weight_conversion to make it a plain LoRA");
    }
  }
  return Unsupported("init_lora_weights", value, "");
}

absl::Status CheckUnsupportedFields(const Json& config) {
  TENON_RETURN_IF_ERROR(CheckInitialisation(Field(config, "init_lora_weights")));
  if (const Json& bias = Field(config, "bias"); !IsUnset(bias) && bias != Json("none")) {
    return Unsupported("bias", bias, "only \"none\" is: the base model's biases are frozen");
  }
  if (const Json& dora = Field(config, "use_dora"); !IsUnset(dora)) {
    return Unsupported("use_dora", dora, "DoRA is not served yet");
  }
  if (const Json& modules = Field(config, "modules_to_save"); !IsUnset(modules)) {
    return Unsupported("modules_to_save", modules,
                       "full copies of base weights are not served; train without them");
  }
  if (const Json& bias = Field(config, "lora_bias"); !IsUnset(bias)) {
    return Unsupported("lora_bias", bias, "");
  }
  for (const auto& [name, value] : config.items()) {
    if (!KnownFields().contains(name) && !IsUnset(value)) {
      return Unsupported(name, value, "");
    }
  }
  return absl::OkStatus();
}

}  // namespace

int64_t PeftLoraConfig::RankOf(absl::string_view module) const {
  return static_cast<int64_t>(ranks.Find(module).value_or(static_cast<double>(rank)));
}

double PeftLoraConfig::ScalingOf(absl::string_view module) const {
  const double r = static_cast<double>(RankOf(module));
  return alphas.Find(module).value_or(alpha) / (use_rslora ? std::sqrt(r) : r);
}

absl::StatusOr<PeftLoraConfig> ParsePeftLoraConfig(const Json& config,
                                                   const AdapterLimits& limits) {
  TENON_RETURN_IF_ERROR(CheckUnsupportedFields(config));
  PeftLoraConfig lora;
  if (const Json& base = Field(config, "base_model_name_or_path"); base.is_string()) {
    lora.base_model = base.get<std::string>();
    if (lora.base_model.size() > kMaxBaseModelBytes) {
      return Invalid("base_model_name_or_path", base,
                     absl::StrCat("at most ", kMaxBaseModelBytes, " bytes long"));
    }
  }
  TENON_ASSIGN_OR_RETURN(lora.use_rslora, ReadBool(config, "use_rslora"));
  TENON_ASSIGN_OR_RETURN(lora.rank, CheckRank("r", Field(config, "r"), limits.max_rank));
  TENON_ASSIGN_OR_RETURN(lora.alpha, CheckAlpha("lora_alpha", Field(config, "lora_alpha")));
  TENON_ASSIGN_OR_RETURN(lora.targets, ReadTargets(config));
  TENON_RETURN_IF_ERROR(ReadPatterns(config, limits.max_rank, &lora));
  TENON_ASSIGN_OR_RETURN(const bool fan_in_fan_out, ReadBool(config, "fan_in_fan_out"));
  if (fan_in_fan_out) {
    lora.warnings.push_back("fan_in_fan_out is true but has no effect on linear layers");
  }
  return lora;
}

}  // namespace tenon
