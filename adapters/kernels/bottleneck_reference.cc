#include <ATen/TensorOperators.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/leaky_relu.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/tanh.h>

#include <utility>
#include <vector>

#include "adapters/kernels/bottleneck.h"

namespace tenon {
namespace {

at::Tensor Activate(BottleneckActivation activation, const at::Tensor& x) {
  switch (activation) {
    case BottleneckActivation::kIdentity:
      return x;
    case BottleneckActivation::kRelu:
      return at::relu(x);
    case BottleneckActivation::kLeakyRelu:
      return at::leaky_relu(x, 0.01);
    case BottleneckActivation::kGelu:
      return at::gelu(x);
    case BottleneckActivation::kGeluTanh:
      return at::gelu(x, "tanh");
    case BottleneckActivation::kSilu:
      return at::silu(x);
    case BottleneckActivation::kTanh:
      return at::tanh(x);
  }
  return x;
}

at::Tensor Norm(const LayerNormWeights& norm, const at::Tensor& x) {
  return norm.weight.defined() ? at::layer_norm(x, {x.size(1)}, norm.weight, norm.bias) : x;
}

at::Tensor Input(const BottleneckDelta& delta, const at::Tensor& residual, const at::Tensor& out) {
  at::Tensor input = out;
  if (delta.input == BottleneckInput::kResidual) {
    input = residual;
  } else if (delta.input == BottleneckInput::kOutputPlusResidual) {
    input = out + residual;
  }
  if (delta.input_norm.defined()) {
    const at::Tensor squares = at::mean(input * input, {1}, /*keepdim=*/true);
    input = input * at::rsqrt(squares + delta.input_norm_eps) * delta.input_norm;
  }
  return input;
}

at::Tensor ResidualOf(const BottleneckDelta& delta, const at::Tensor& input,
                      const at::Tensor& residual, const at::Tensor& out) {
  switch (delta.residual) {
    case BottleneckResidual::kOutput:
      return out;
    case BottleneckResidual::kInput:
      return input;
    case BottleneckResidual::kOutputPlusResidual:
      return out + residual;
  }
  return out;
}

// The update of one term, fp32, from fp32 rows.
at::Tensor Update(const BottleneckDelta& delta, const at::Tensor& residual, const at::Tensor& out) {
  const at::Tensor input = Input(delta, residual, out);
  const at::Tensor down = at::linear(Norm(delta.norm_before, input),
                                     delta.down.Unpack().to(at::kFloat), delta.down_bias);
  const at::Tensor value = at::linear(Activate(delta.activation, down),
                                      delta.up.Unpack().to(at::kFloat), delta.up_bias) *
                           delta.scale;
  const at::Tensor r = ResidualOf(delta, input, residual, out);
  const at::Tensor result = delta.adds_residual_before_norm ? Norm(delta.norm_after, value + r)
                                                            : Norm(delta.norm_after, value) + r;
  return delta.drops_stream ? result - out - residual : result - out;
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
