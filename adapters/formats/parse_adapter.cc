#include "adapters/formats/parse_adapter.h"

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"
#include "adapters/formats/adapter_hub.h"
#include "adapters/formats/checked_json.h"
#include "adapters/formats/peft_methods.h"
#include "adapters/formats/safetensors.h"

namespace tenon {
namespace {

constexpr absl::string_view kConfigName = "adapter_config.json";
constexpr absl::string_view kPeftWeightsName = "adapter_model.safetensors";
constexpr absl::string_view kAdapterHubWeightsName = "adapter.safetensors";

absl::Status CheckFiles(const FileSet& files, const AdapterLimits& limits) {
  int64_t num_bytes = 0;
  for (const auto& [name, file] : files) {
    TENON_RETURN_IF_ERROR(CheckAdapterFileName(name));
    num_bytes += static_cast<int64_t>(file.bytes.size());
  }
  if (num_bytes > limits.max_upload_bytes) {
    return InvalidAdapterError("UPLOAD_LIMIT", "files",
                               absl::StrCat("files of ", num_bytes, " bytes exceed the limit of ",
                                            limits.max_upload_bytes, " (max_upload_bytes)"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::span<const std::byte>> FindFile(const FileSet& files, absl::string_view name) {
  const auto position = files.find(name);
  if (position == files.end()) {
    return InvalidAdapterError("MISSING_FILE", name,
                               absl::StrCat("file \"", name, "\" is missing"));
  }
  return position->second.bytes;
}

struct PeftMethod {
  absl::string_view peft_type;
  PeftParser* parse;
};
constexpr PeftMethod kPeftMethods[] = {
    {"LORA", ParsePeftLora},
    {"IA3", ParsePeftIa3},
    {"PROMPT_TUNING", ParsePeftPromptTuning},
    {"P_TUNING", ParsePeftPromptTuning},
    {"PREFIX_TUNING", ParsePeftPrefixTuning},
    {"VERA", ParsePeftVera},
    {"LOHA", ParsePeftLoha},
    {"LOKR", ParsePeftLokr},
    {"TRAINABLE_TOKENS", ParsePeftTrainableTokens},
};

absl::StatusOr<PeftParser*> FindPeftMethod(const nlohmann::ordered_json& type) {
  for (const PeftMethod& method : kPeftMethods) {
    if (type == nlohmann::ordered_json(std::string(method.peft_type))) {
      return method.parse;
    }
  }
  const std::string served = absl::StrJoin(
      kPeftMethods, ", ",
      [](std::string* out, const PeftMethod& method) { absl::StrAppend(out, method.peft_type); });
  return InvalidAdapterError("UNSUPPORTED_ADAPTER", "peft_type",
                             absl::StrCat(kConfigName, ": peft_type ", QuotedJson(type),
                                          " is not served; served are ", served));
}

absl::StatusOr<SafetensorsFile> ReadWeights(const FileSet& files, absl::string_view name,
                                            const AdapterLimits& limits) {
  TENON_ASSIGN_OR_RETURN(const auto bytes, FindFile(files, name));
  return ParseSafetensors(name, bytes, {limits.max_header_bytes, limits.max_tensors});
}

absl::StatusOr<AdapterSpec> ParseDialect(const nlohmann::ordered_json& config, const FileSet& files,
                                         const AdapterLimits& limits) {
  if (const auto type = config.find("peft_type"); type != config.end()) {
    TENON_ASSIGN_OR_RETURN(PeftParser* const parse, FindPeftMethod(*type));
    TENON_ASSIGN_OR_RETURN(const SafetensorsFile weights,
                           ReadWeights(files, kPeftWeightsName, limits));
    return parse(config, weights, limits);
  }
  if (const auto inner = config.find("config"); inner != config.end() && inner->is_object()) {
    TENON_ASSIGN_OR_RETURN(const SafetensorsFile weights,
                           ReadWeights(files, kAdapterHubWeightsName, limits));
    return ParseAdapterHub(config, weights, files, limits);
  }
  return InvalidAdapterError(
      "UNSUPPORTED_ADAPTER", "peft_type",
      absl::StrCat(kConfigName,
                   ": has no peft_type and no config object, so it was written neither "
                   "by PEFT nor by the AdapterHub `adapters` library"));
}

}  // namespace

absl::StatusOr<AdapterSpec> ParseAdapter(FileSet files, const AdapterLimits& limits) {
  TENON_RETURN_IF_ERROR(CheckFiles(files, limits));
  TENON_ASSIGN_OR_RETURN(const auto config_bytes, FindFile(files, kConfigName));
  JsonLimits json_limits;
  json_limits.max_bytes = limits.max_config_bytes;
  TENON_ASSIGN_OR_RETURN(const nlohmann::ordered_json config,
                         ParseCheckedJson(kConfigName, config_bytes, json_limits));
  TENON_ASSIGN_OR_RETURN(AdapterSpec spec, ParseDialect(config, files, limits));
  spec.files = std::move(files);
  return spec;
}

}  // namespace tenon
