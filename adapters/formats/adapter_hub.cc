#include "adapters/formats/adapter_hub.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"
#include "adapters/formats/checked_json.h"
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

// adapter_interface.json tells where the library hooked a model that it does not know itself. The
// places decide what an adapter computes, so only the usual ones pass.
absl::Status CheckInterface(const FileSet& files, const AdapterLimits& limits) {
  constexpr absl::string_view kName = "adapter_interface.json";
  const auto found = files.find(kName);
  if (found == files.end()) {
    return absl::OkStatus();
  }
  JsonLimits json_limits;
  json_limits.max_bytes = limits.max_config_bytes;
  TENON_ASSIGN_OR_RETURN(const Json file,
                         ParseCheckedJson(kName, found->second.bytes, json_limits));
  static constexpr std::pair<absl::string_view, absl::string_view> kPlaces[] = {
      {"layer_self_attn", "self_attn"},
      {"attn_o_proj", "o_proj"},
      {"attn_q_proj", "q_proj"},
      {"attn_k_proj", "k_proj"},
      {"attn_v_proj", "v_proj"},
      {"layer_intermediate_proj", "mlp.up_proj"},
      {"layer_output_proj", "mlp.down_proj"},
      {"layer_pre_self_attn", "input_layernorm"}};
  const Json& interface = Field(file, "interface");
  for (const auto& [field, usual] : kPlaces) {
    const Json& value = interface.is_object() ? Field(interface, field) : interface;
    if (value != Json(std::string(usual))) {
      return InvalidAdapterError("UNSUPPORTED_ADAPTER", kName,
                                 absl::StrCat(kName, ": ", field, " is ", QuotedJson(value),
                                              "; served is \"", usual, "\""));
    }
  }
  return absl::OkStatus();
}

// The head that save_adapter writes with with_head=True.
absl::Status ReadHead(const FileSet& files, const AdapterLimits& limits, SharedParts* shared) {
  constexpr absl::string_view kName = "model_head.safetensors";
  const auto found = files.find(kName);
  if (found == files.end()) {
    return absl::OkStatus();
  }
  const int64_t num_bytes = static_cast<int64_t>(found->second.bytes.size());
  if (num_bytes > limits.max_override_bytes) {
    return InvalidAdapterError(
        "OVERRIDE_LIMIT", kName,
        absl::StrCat(kName, ": ", num_bytes, " bytes exceed the limit of ",
                     limits.max_override_bytes,
                     " (max_override_bytes); an untrained head can be left out (with_head=False)"));
  }
  TENON_ASSIGN_OR_RETURN(
      const SafetensorsFile head,
      ParseSafetensors(kName, found->second.bytes, {limits.max_header_bytes, limits.max_tensors}));
  for (const auto& [name, view] : head.tensors) {
    if (name != "lm_head.weight") {
      return RefuseTensor("UNKNOWN_TENSOR", name,
                          "of the head is not lm_head.weight; other heads are not served");
    }
    TENON_RETURN_IF_ERROR(CheckFloats({name, view}, 2));
    shared->saved_modules.push_back({"lm_head", view});
  }
  return absl::OkStatus();
}

}  // namespace

int64_t LayerNumber(absl::string_view layer) {
  int64_t number = -1;
  return absl::SimpleAtoi(LastComponent(layer), &number) && number >= 0 ? number : -1;
}

absl::StatusOr<AdapterSpec> ParseAdapterHub(const Json& config, const SafetensorsFile& file,
                                            const FileSet& files, const AdapterLimits& limits) {
  TENON_RETURN_IF_ERROR(CheckVersion(config));
  TENON_RETURN_IF_ERROR(CheckNoOtherFields(config, {kFields}));
  TENON_RETURN_IF_ERROR(CheckInterface(files, limits));
  AdapterHubContext context{Field(config, "config"), file, limits};
  TENON_ASSIGN_OR_RETURN(context.hidden_size,
                         CheckCount("hidden_size", Field(config, "hidden_size"), kMaxHidden,
                                    "features", "INVALID_CONFIG"));
  if (file.tensors.empty()) {
    return InvalidAdapterError("NO_TENSORS", "adapter.safetensors",
                               "adapter.safetensors: holds no tensors");
  }
  AdapterSpec spec;
  TENON_RETURN_IF_ERROR(ReadHead(files, limits, &spec.shared));
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
    TENON_ASSIGN_OR_RETURN(spec.body, ParseAdapterHubLora(context, &spec.built));
    spec.method = std::holds_alternative<Ia3Spec>(spec.body) ? "IA3" : "LORA";
  } else {
    return UnsupportedConfig("architecture", architecture,
                             "bottleneck adapters, \"lora\" and IA3 are served; the library saves "
                             "its prefix tuning as pickle only");
  }
  return spec;
}

}  // namespace tenon
