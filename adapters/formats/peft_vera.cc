// VeRA (arXiv:2310.11454).

#include <utility>

#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"
#include "adapters/formats/config_fields.h"
#include "adapters/formats/peft_methods.h"
#include "adapters/formats/peft_tensors.h"

namespace tenon {
namespace {

using Json = nlohmann::ordered_json;

constexpr absl::string_view kFields[] = {"r",
                                         "save_projection",
                                         "projection_prng_key",  // what save_projection makes moot
                                         "vera_dropout",
                                         "d_initial",
                                         "init_weights"};
constexpr absl::string_view kLeaves[] = {"vera_lambda_b", "vera_lambda_d"};
constexpr absl::string_view kProjections[] = {"base_model.vera_A", "base_model.vera_B"};

absl::StatusOr<TensorView> ReadProjection(const SafetensorsFile& file, absl::string_view name,
                                          const std::vector<int64_t>& shape) {
  const auto found = file.tensors.find(name);
  if (found == file.tensors.end()) {
    return RefuseTensor("MISSING_TENSOR", name, "is missing although save_projection is true");
  }
  TENON_RETURN_IF_ERROR(CheckShape({found->first, found->second}, shape));
  return found->second;
}

absl::StatusOr<VeraModule> BuildModule(const std::string& module, const TensorGroup& group,
                                       int64_t rank, int64_t widest_out) {
  TENON_ASSIGN_OR_RETURN(const NamedTensor lambda_b, GetTensor(group, "vera_lambda_b"));
  TENON_ASSIGN_OR_RETURN(const NamedTensor lambda_d, GetTensor(group, "vera_lambda_d"));
  TENON_RETURN_IF_ERROR(CheckShape(lambda_b, {-1}));
  TENON_RETURN_IF_ERROR(CheckShape(lambda_d, {rank}));
  if (lambda_b.view.shape[0] > widest_out) {
    return RefuseTensor("INVALID_SHAPE", lambda_b.name, "is longer than vera_B has rows");
  }
  return VeraModule{module, lambda_b.view, lambda_d.view};
}

}  // namespace

absl::StatusOr<AdapterSpec> ParsePeftVera(const Json& config, const SafetensorsFile& file,
                                          const AdapterLimits& limits) {
  TENON_ASSIGN_OR_RETURN(PeftConfig peft,
                         ReadPeftConfig(config, kFields, /*has_targets=*/true, "vera_only"));
  TENON_ASSIGN_OR_RETURN(const bool saved, ReadBool(config, "save_projection", true));
  if (!saved) {
    return UnsupportedConfig("save_projection", Json(false),
                             "the projections A and B must be in the file, because a seed gives "
                             "other numbers on other systems; save with save_projection=True");
  }
  TENON_ASSIGN_OR_RETURN(const int64_t rank, CheckCount("r", Field(config, "r"), limits.max_rank,
                                                        "max_adapter_rank", "RANK_LIMIT"));
  TENON_ASSIGN_OR_RETURN(const PeftTensors tensors, GroupPeftTensors(file, kLeaves, kProjections));
  TENON_RETURN_IF_ERROR(CheckTargets(tensors, 0, &peft));
  VeraSpec body;
  TENON_ASSIGN_OR_RETURN(body.a, ReadProjection(file, kProjections[0], {rank, -1}));
  TENON_ASSIGN_OR_RETURN(body.b, ReadProjection(file, kProjections[1], {-1, rank}));
  for (const auto& [module, group] : tensors.modules) {
    TENON_ASSIGN_OR_RETURN(VeraModule vera, BuildModule(module, group, rank, body.b.shape[0]));
    body.modules.push_back(std::move(vera));
  }
  AdapterSpec spec;
  spec.body = std::move(body);
  TENON_ASSIGN_OR_RETURN(spec.shared, ReadSharedParts(tensors, limits, &peft));
  spec.method = "VERA";
  spec.base_model = std::move(peft.base_model);
  spec.warnings = std::move(peft.warnings);
  return spec;
}

}  // namespace tenon
