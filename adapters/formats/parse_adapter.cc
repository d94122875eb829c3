#include "adapters/formats/parse_adapter.h"

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"
#include "adapters/formats/checked_json.h"
#include "adapters/formats/peft_config.h"
#include "adapters/formats/peft_lora.h"
#include "adapters/formats/safetensors.h"

namespace tenon {
namespace {

constexpr absl::string_view kConfigName = "adapter_config.json";
constexpr absl::string_view kWeightsName = "adapter_model.safetensors";

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

// OK for a PEFT LoRA; otherwise says which dialect or method this is.
absl::Status CheckDialect(const nlohmann::ordered_json& config) {
  if (const auto type = config.find("peft_type"); type != config.end()) {
    if (*type == "LORA") {
      return absl::OkStatus();
    }
    return InvalidAdapterError("UNSUPPORTED_ADAPTER", "peft_type",
                               absl::StrCat(kConfigName, ": peft_type ", QuotedJson(*type),
                                            " is not served yet; served: \"LORA\""));
  }
  const auto inner = config.find("config");
  if (inner != config.end() && inner->is_object()) {
    return InvalidAdapterError(
        "UNSUPPORTED_ADAPTER", "config",
        absl::StrCat(kConfigName,
                     ": adapters of the AdapterHub `adapters` library are not served yet"));
  }
  return InvalidAdapterError("UNSUPPORTED_ADAPTER", "peft_type",
                             absl::StrCat(kConfigName,
                                          ": has no peft_type, so it was not written "
                                          "by PEFT"));
}

}  // namespace

absl::StatusOr<AdapterSpec> ParseAdapter(FileSet files, const AdapterLimits& limits) {
  TENON_RETURN_IF_ERROR(CheckFiles(files, limits));
  TENON_ASSIGN_OR_RETURN(const auto config_bytes, FindFile(files, kConfigName));
  JsonLimits json_limits;
  json_limits.max_bytes = limits.max_config_bytes;
  TENON_ASSIGN_OR_RETURN(const nlohmann::ordered_json config,
                         ParseCheckedJson(kConfigName, config_bytes, json_limits));
  TENON_RETURN_IF_ERROR(CheckDialect(config));
  TENON_ASSIGN_OR_RETURN(PeftLoraConfig lora, ParsePeftLoraConfig(config, limits));

  TENON_ASSIGN_OR_RETURN(const auto weight_bytes, FindFile(files, kWeightsName));
  TENON_ASSIGN_OR_RETURN(
      const SafetensorsFile weights,
      ParseSafetensors(kWeightsName, weight_bytes, {limits.max_header_bytes, limits.max_tensors}));
  AdapterSpec spec;
  spec.method = lora.use_rslora ? "RSLORA" : "LORA";
  spec.base_model = std::move(lora.base_model);
  spec.warnings = std::move(lora.warnings);
  TENON_ASSIGN_OR_RETURN(spec.body, BuildLoraSpec(lora, weights, limits, &spec.warnings));
  spec.files = std::move(files);
  return spec;
}

}  // namespace tenon
