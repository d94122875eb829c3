// IA3 (arXiv:2205.05638).

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "adapters/base/status_macros.h"
#include "adapters/formats/config_fields.h"
#include "adapters/formats/peft_methods.h"
#include "adapters/formats/peft_tensors.h"

namespace tenon {
namespace {

using Json = nlohmann::ordered_json;

constexpr absl::string_view kFields[] = {"feedforward_modules", "init_ia3_weights"};
constexpr absl::string_view kLeaves[] = {"ia3_l"};

// Unlike targets, a listed name matches as any ending (peft IA3Model's
// _check_target_module_feedforward).
bool IsFeedForward(const ModuleNames& names, absl::string_view module) {
  if (names.is_regex()) {
    return names.Matches(module);
  }
  return std::any_of(names.suffixes().begin(), names.suffixes().end(),
                     [&](const std::string& name) { return absl::EndsWith(module, name); });
}

absl::StatusOr<ModuleNames> ReadFeedForward(const Json& config) {
  const Json& value = Field(config, "feedforward_modules");
  if (IsUnset(value)) {
    return ModuleNames();
  }
  return ReadModuleNames("feedforward_modules", value);
}

}  // namespace

absl::StatusOr<AdapterSpec> ParsePeftIa3(const Json& config, const SafetensorsFile& file,
                                         const AdapterLimits& limits) {
  TENON_ASSIGN_OR_RETURN(PeftConfig peft, ReadPeftConfig(config, kFields, /*has_targets=*/true));
  TENON_ASSIGN_OR_RETURN(const ModuleNames feed_forward, ReadFeedForward(config));
  TENON_ASSIGN_OR_RETURN(const PeftTensors tensors, GroupPeftTensors(file, kLeaves));
  const int64_t cost = feed_forward.cost() + static_cast<int64_t>(feed_forward.suffixes().size());
  TENON_RETURN_IF_ERROR(CheckTargets(tensors, cost, &peft));
  AdapterSpec spec;
  Ia3Spec body;
  for (const auto& [module, group] : tensors.modules) {
    Ia3Module ia3;
    ia3.module = module;
    ia3.on_input = IsFeedForward(feed_forward, module);
    TENON_ASSIGN_OR_RETURN(const NamedTensor scale, GetTensor(group, "ia3_l"));
    // [1, in] on the input, [out, 1] on the output.
    TENON_RETURN_IF_ERROR(CheckShape(
        scale, ia3.on_input ? std::vector<int64_t>{1, -1} : std::vector<int64_t>{-1, 1}));
    ia3.scale = scale.view;
    body.modules.push_back(std::move(ia3));
  }
  spec.body = std::move(body);
  TENON_ASSIGN_OR_RETURN(spec.shared, ReadSharedParts(tensors, limits, &peft));
  spec.method = "IA3";
  spec.base_model = std::move(peft.base_model);
  spec.warnings = std::move(peft.warnings);
  return spec;
}

}  // namespace tenon
