#include "adapters/methods/lora.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/matmul.h>

#include "adapters/base/status_macros.h"

namespace tenon {
namespace {

// One module's tensors, fp32.
struct Factors {
  at::Tensor a;       // [rank, in]
  at::Tensor b;       // [out, rank]
  at::Tensor b_bias;  // [out] or undefined
  double scaling = 1.0;
};

// What DoRA multiplies each output with: the magnitude over the norms of the rows of
// W + scaling * (B A + b_bias); PEFT puts the bias in every column.
absl::StatusOr<at::Tensor> DoraFactor(const Target& target, const Factors& factors,
                                      const at::Tensor& magnitude, const AdapterBuilder& builder) {
  TENON_ASSIGN_OR_RETURN(const at::Tensor weight, builder.BaseWeight(target));
  at::Tensor delta = at::matmul(factors.b, factors.a);
  if (factors.b_bias.defined()) {
    delta = delta + factors.b_bias.unsqueeze(1);
  }
  return magnitude / at::linalg_vector_norm(weight + delta * factors.scaling, 2, {1});
}

absl::Status ApplyDora(const Target& target, const at::Tensor& magnitude, Factors& factors,
                       AdapterBuilder& builder) {
  TENON_RETURN_IF_ERROR(AdapterBuilder::CheckSize(target.module, "the size of the magnitude",
                                                  magnitude.numel(), target.shape.out_features));
  TENON_ASSIGN_OR_RETURN(const at::Tensor factor,
                         DoraFactor(target, factors, magnitude.flatten(), builder));
  const at::Tensor gain = factor - 1.0;
  TENON_RETURN_IF_ERROR(builder.AddOutputGain(target, gain));
  TENON_ASSIGN_OR_RETURN(const at::Tensor bias, builder.BaseBias(target));
  if (bias.defined()) {
    TENON_RETURN_IF_ERROR(builder.AddOffset(target, -gain * bias));
  }
  factors.b = factors.b * factor.unsqueeze(1);
  if (factors.b_bias.defined()) {
    factors.b_bias = factors.b_bias * factor;
  }
  return absl::OkStatus();
}

absl::Status CompileModule(const LoraModule& lora, AdapterBuilder& builder) {
  TENON_ASSIGN_OR_RETURN(const Target target, builder.FindLinearOrEmbedding(
                                                  lora.module, lora.a.shape[1], lora.b.shape[0]));
  Factors factors;
  factors.a = builder.Read(lora.a);
  factors.b = builder.Read(lora.b);
  factors.scaling = lora.scaling;
  if (lora.b_bias.has_value()) {
    factors.b_bias = builder.Read(*lora.b_bias).flatten();
    TENON_RETURN_IF_ERROR(AdapterBuilder::CheckSize(
        target.module, "the size of the bias", factors.b_bias.numel(), target.shape.out_features));
  }
  if (lora.magnitude.has_value()) {
    TENON_RETURN_IF_ERROR(ApplyDora(target, builder.Read(*lora.magnitude), factors, builder));
  }
  if (factors.b_bias.defined()) {
    TENON_RETURN_IF_ERROR(builder.AddOffset(target, factors.b_bias * factors.scaling));
  }
  return builder.AddLowRank(target, factors.a, factors.b, factors.scaling);
}

}  // namespace

absl::Status CompileLora(const LoraSpec& spec, AdapterBuilder& builder) {
  // What was made for another base is refused before any tensor is read.
  for (const LoraModule& lora : spec.modules) {
    TENON_RETURN_IF_ERROR(
        builder.FindLinearOrEmbedding(lora.module, lora.a.shape[1], lora.b.shape[0]).status());
  }
  for (const LoraModule& lora : spec.modules) {
    TENON_RETURN_IF_ERROR(CompileModule(lora, builder));
  }
  return absl::OkStatus();
}

}  // namespace tenon
