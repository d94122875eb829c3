#include <ATen/TensorOperators.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/tanh.h>

#include <utility>
#include <vector>

#include "adapters/kernels/bottleneck.h"

namespace tenon {
namespace {

at::Tensor Activate(Activation activation, const at::Tensor& x) {
  switch (activation) {
    case Activation::kIdentity:
      return x;
    case Activation::kRelu:
      return at::relu(x);
    case Activation::kGelu:
      return at::gelu(x);
    case Activation::kGeluTanh:
      return at::gelu(x, "tanh");
    case Activation::kSilu:
      return at::silu(x);
    case Activation::kTanh:
      return at::tanh(x);
  }
  return x;
}

at::Tensor Norm(const LayerNormWeights& norm, const at::Tensor& x) {
  return norm.weight.defined() ? at::layer_norm(x, {x.size(1)}, norm.weight, norm.bias) : x;
}

// The update of one term, fp32, from fp32 rows.
at::Tensor Update(const BottleneckDelta& delta, const at::Tensor& residual, const at::Tensor& out) {
  at::Tensor input = out;
  if (delta.input == BottleneckInput::kResidual) {
    input = residual;
  } else if (delta.input == BottleneckInput::kOutputPlusResidual) {
    input = out + residual;
  }
  const at::Tensor down = at::linear(Norm(delta.norm_before, input),
                                     delta.down.Unpack().to(at::kFloat), delta.down_bias);
  at::Tensor update = at::linear(Activate(delta.activation, down), delta.up.Unpack().to(at::kFloat),
                                 delta.up_bias) *
                      delta.scale;
  if (delta.norm_after.weight.defined()) {
    update = Norm(delta.norm_after,
                  update + out * delta.out_in_norm + residual * delta.residual_in_norm);
  }
  return update + out * delta.out_factor + residual * delta.residual_factor;
}

}  // namespace

void ApplyBottleneckReference(const at::Tensor& residual, std::span<const BottleneckTerm> terms,
                              const at::Tensor& out) {
  std::vector<at::Tensor> updates;
  for (const BottleneckTerm& term : terms) {
    const int64_t rows = term.end - term.begin;
    updates.push_back(Update(*term.delta, residual.narrow(0, term.begin, rows).to(at::kFloat),
                             out.narrow(0, term.begin, rows).to(at::kFloat)));
  }
  for (size_t i = 0; i < terms.size(); ++i) {
    const at::Tensor rows = out.narrow(0, terms[i].begin, terms[i].end - terms[i].begin);
    rows.copy_(rows.to(at::kFloat) + updates[i] * terms[i].weight);
  }
}

}  // namespace tenon
