// The `adapters` library's own LoRA and IA3 (LoRAConfig with composition_mode "add" or "scale").

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "adapters/base/status_macros.h"
#include "adapters/formats/adapter_hub.h"
#include "adapters/formats/config_fields.h"
#include "adapters/formats/tensor_checks.h"

namespace tenon {
namespace {

using Json = nlohmann::ordered_json;

constexpr absl::string_view kMarker = ".loras.";
constexpr absl::string_view kFields[] = {
    "architecture", "r", "alpha", "composition_mode",
    // Where the library puts modules; the tensors show where they are.
    "selfattn_lora", "intermediate_lora", "output_lora", "attn_matrices", "leave_out",
    // Of training or of initialisation.
    "dropout", "init_weights", "init_weights_seed", "dtype"};

struct LoraPair {
  NamedTensor a, b;  // a has no name in IA3
};
using LoraPairs = std::map<std::string, LoraPair>;

// "<module>.loras.<name>.lora_A" and "...lora_B".
absl::StatusOr<LoraPairs> PairTensors(const SafetensorsFile& file) {
  LoraPairs pairs;
  std::string adapter_name;
  for (const auto& [name, view] : file.tensors) {
    const absl::string_view text = name;
    const size_t place = text.find(kMarker);
    const size_t dot = text.rfind('.');
    if (place == absl::string_view::npos || dot < place + kMarker.size() ||
        !IsModuleName(text.substr(0, place)) ||
        (text.substr(dot) != ".lora_A" && text.substr(dot) != ".lora_B")) {
      return RefuseTensor("UNKNOWN_TENSOR", name,
                          "is not <module>.loras.<name>.lora_A or <module>.loras.<name>.lora_B");
    }
    const std::string adapter(text.substr(place + kMarker.size(), dot - place - kMarker.size()));
    if (adapter_name.empty()) {
      adapter_name = adapter;
    }
    if (adapter != adapter_name) {
      return RefuseTensor("UNEXPECTED_TENSOR", name,
                          "belongs to a second adapter; a folder holds one");
    }
    LoraPair& pair = pairs[std::string(text.substr(0, place))];
    (text.substr(dot) == ".lora_A" ? pair.a : pair.b) = {name, view};
  }
  return pairs;
}

absl::StatusOr<MethodSpec> BuildIa3(const LoraPairs& pairs, double alpha) {
  Ia3Spec spec;
  for (const auto& [module, pair] : pairs) {
    if (!pair.a.name.empty() || pair.b.name.empty()) {
      return RefuseTensor("UNEXPECTED_TENSOR", pair.a.name,
                          "is a lora_A, which composition_mode \"scale\" does not have");
    }
    TENON_RETURN_IF_ERROR(CheckShape(pair.b, {-1, 1}));
    Ia3Module ia3;
    ia3.module = module;
    ia3.scale = pair.b.view;
    ia3.scaling = alpha;
    spec.modules.push_back(std::move(ia3));
  }
  return spec;
}

absl::StatusOr<MethodSpec> BuildLora(const LoraPairs& pairs, int64_t rank, double alpha,
                                     const AdapterLimits& limits) {
  LoraSpec spec;
  for (const auto& [module, pair] : pairs) {
    if (pair.a.name.empty() || pair.b.name.empty()) {
      return RefuseTensor("UNPAIRED_TENSOR", pair.a.name.empty() ? pair.b.name : pair.a.name,
                          "has no matching lora_A or lora_B");
    }
    if (LastComponent(module) == "c_attn") {
      return RefuseTensor("UNSUPPORTED_ADAPTER", pair.a.name,
                          "is LoRA on parts of a fused projection, which is not served in this "
                          "dialect; train it with PEFT");
    }
    TENON_RETURN_IF_ERROR(CheckFloats(pair.a, 2));
    TENON_RETURN_IF_ERROR(CheckFloats(pair.b, 2));
    TENON_RETURN_IF_ERROR(CheckTensorRank(pair.a, 0, rank, limits.max_rank));
    TENON_RETURN_IF_ERROR(CheckTensorRank(pair.b, 1, rank, limits.max_rank));
    LoraModule lora;
    lora.module = module;
    lora.a = pair.a.view;
    lora.b = pair.b.view;
    lora.scaling = alpha / static_cast<double>(rank);
    spec.modules.push_back(std::move(lora));
  }
  return spec;
}

}  // namespace

absl::StatusOr<MethodSpec> ParseAdapterHubLora(const AdapterHubContext& context) {
  const Json& settings = context.settings;
  TENON_RETURN_IF_ERROR(CheckNoOtherFields(settings, {kFields}));
  TENON_ASSIGN_OR_RETURN(
      const int64_t rank,
      CheckCount("r", Field(settings, "r"), context.limits.max_rank, "max_rank", "RANK_LIMIT"));
  TENON_ASSIGN_OR_RETURN(const double alpha, CheckFactor("alpha", Field(settings, "alpha")));
  TENON_ASSIGN_OR_RETURN(const LoraPairs pairs, PairTensors(context.file));
  const Json& mode = Field(settings, "composition_mode");
  if (mode == Json("scale")) {
    return BuildIa3(pairs, alpha);
  }
  if (mode != Json("add")) {
    return UnsupportedConfig("composition_mode", mode, "\"add\" and \"scale\" are");
  }
  return BuildLora(pairs, rank, alpha, context.limits);
}

}  // namespace tenon
