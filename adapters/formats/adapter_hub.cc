#include "adapters/formats/adapter_hub.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"
#include "adapters/formats/config_fields.h"
#include "adapters/formats/tensor_checks.h"

namespace tenon {
namespace {

using Json = nlohmann::ordered_json;

constexpr absl::string_view kFields[] = {"config",     "hidden_size", "model_class", "model_name",
                                         "model_type", "name",        "version"};
constexpr int64_t kMaxHidden = 1 << 20;
constexpr size_t kMaxBaseModelBytes = 1024;

absl::Status CheckVersion(const Json& config) {
  const Json& version = Field(config, "version");
  if (version.is_string() && absl::StartsWith(version.get<std::string>(), "adapters.")) {
    return absl::OkStatus();
  }
  return UnsupportedConfig("version", version,
                           "versions of the `adapters` library (\"adapters.1.3.0\") are");
}

}  // namespace

int64_t LayerNumber(absl::string_view layer) {
  int64_t number = -1;
  return absl::SimpleAtoi(LastComponent(layer), &number) && number >= 0 ? number : -1;
}

absl::StatusOr<AdapterSpec> ParseAdapterHub(const Json& config, const SafetensorsFile& file,
                                            const AdapterLimits& limits) {
  TENON_RETURN_IF_ERROR(CheckVersion(config));
  TENON_RETURN_IF_ERROR(CheckNoOtherFields(config, {kFields}));
  AdapterHubContext context{Field(config, "config"), file, limits};
  TENON_ASSIGN_OR_RETURN(context.hidden_size,
                         CheckCount("hidden_size", Field(config, "hidden_size"), kMaxHidden,
                                    "features", "INVALID_CONFIG"));
  if (file.tensors.empty()) {
    return InvalidAdapterError("NO_TENSORS", "adapter.safetensors",
                               "adapter.safetensors: holds no tensors");
  }
  AdapterSpec spec;
  if (const Json& base = Field(config, "model_name"); base.is_string()) {
    spec.base_model = base.get<std::string>();
    if (spec.base_model.size() > kMaxBaseModelBytes) {
      return InvalidConfig("model_name", base,
                           absl::StrCat("at most ", kMaxBaseModelBytes, " bytes long"));
    }
  }
  const Json& architecture = Field(context.settings, "architecture");
  if (IsUnset(architecture)) {
    spec.method = "BOTTLENECK";
    TENON_ASSIGN_OR_RETURN(spec.body, ParseAdapterHubBottleneck(context));
  } else if (architecture == Json("lora")) {
    TENON_ASSIGN_OR_RETURN(spec.body, ParseAdapterHubLora(context));
    spec.method = std::holds_alternative<Ia3Spec>(spec.body) ? "IA3" : "LORA";
  } else {
    return UnsupportedConfig("architecture", architecture,
                             "bottleneck adapters, \"lora\" and IA3 are served; the library saves "
                             "its prefix tuning as pickle only");
  }
  return spec;
}

}  // namespace tenon
