#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/silu.h>

#include "server/kernels/activation.h"
#include "server/kernels/norm.h"
#include "server/kernels/rope.h"

namespace tenon {
namespace {

// In double: 1 + tanh(u) cancels for negative u, and leaves fp32 half of its digits.
at::Tensor ApplyActivation(const at::Tensor& x, Activation activation) {
  const at::Tensor wide = x.to(at::kDouble);
  return activation == Activation::kSilu ? at::silu(wide) : at::gelu(wide, "tanh");
}

}  // namespace

void NormalizeReference(const at::Tensor& x, const Norm& norm, const at::Tensor& y) {
  const at::Tensor wide = x.to(at::kFloat);
  if (norm.kind == NormKind::kLayer) {
    y.copy_(at::layer_norm(wide, norm.weight.sizes(), norm.weight, norm.bias, norm.eps));
    return;
  }
  const at::Tensor variance = wide.pow(2).mean({-1}, /*keepdim=*/true);
  const at::Tensor normed = wide * at::rsqrt(variance + norm.eps);
  y.copy_(norm.weight * (norm.kind == NormKind::kRms ? normed.to(x.scalar_type()) : normed));
}

void AddNormalizeReference(const at::Tensor& x, const at::Tensor& residual, const Norm& norm,
                           const at::Tensor& y) {
  residual.add_(x);
  NormalizeReference(residual, norm, y);
}

void NormalizeHeadsReference(const at::Tensor& x, const Norm& norm) {
  NormalizeReference(x, norm, x);
}

void ApplyRopeReference(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin,
                        const at::Tensor& positions) {
  const int64_t half = x.size(2) / 2;
  const at::Tensor index = positions.to(at::kLong);
  const at::Tensor c = cos.index_select(0, index).unsqueeze(1);  // [T, 1, head_dim / 2]
  const at::Tensor s = sin.index_select(0, index).unsqueeze(1);
  const at::Tensor first = x.narrow(2, 0, half).to(at::kFloat);
  const at::Tensor second = x.narrow(2, half, half).to(at::kFloat);
  x.copy_(at::cat({first * c - second * s, second * c + first * s}, 2));
}

void GateReference(const at::Tensor& gate_up, Activation activation, const at::Tensor& y) {
  const int64_t width = gate_up.size(1) / 2;
  y.copy_(ApplyActivation(gate_up.narrow(1, 0, width), activation) *
          gate_up.narrow(1, width, width).to(at::kFloat));
}

void ActivateReference(const at::Tensor& x, Activation activation, const at::Tensor& y) {
  y.copy_(ApplyActivation(x, activation));
}

void SoftCapReference(const at::Tensor& x, float cap) {
  x.copy_(x.to(at::kFloat).div(cap).tanh().mul(cap));
}

}  // namespace tenon
