#include "adapters/methods/ia3.h"

#include <ATen/TensorOperators.h>

#include "adapters/base/status_macros.h"

namespace tenon {
namespace {

absl::Status CompileModule(const Ia3Module& module, AdapterBuilder& builder) {
  TENON_ASSIGN_OR_RETURN(const Target found, builder.Find(module.module));
  TENON_ASSIGN_OR_RETURN(
      const Target target,
      builder.FindLinear(module.module, found.shape.in_features, found.shape.out_features));
  const at::Tensor gain = builder.Read(module.scale).flatten() * module.scaling - 1.0;
  TENON_RETURN_IF_ERROR(AdapterBuilder::CheckSize(
      module.module, "the size of the scale", gain.numel(),
      module.on_input ? target.shape.in_features : target.shape.out_features));
  return module.on_input ? builder.AddInputGain(target, gain) : builder.AddOutputGain(target, gain);
}

}  // namespace

absl::Status CompileIa3(const Ia3Spec& spec, AdapterBuilder& builder) {
  for (const Ia3Module& module : spec.modules) {
    TENON_RETURN_IF_ERROR(CompileModule(module, builder));
  }
  return absl::OkStatus();
}

}  // namespace tenon
