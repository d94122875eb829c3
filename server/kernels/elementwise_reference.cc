#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/silu.h>

#include "server/kernels/activation.h"
#include "server/kernels/norm.h"
#include "server/kernels/rope.h"

namespace tenon {

void RmsNormReference(const at::Tensor& x, const at::Tensor& weight, float eps,
                      const at::Tensor& y) {
  const at::Tensor wide = x.to(at::kFloat);
  const at::Tensor variance = wide.pow(2).mean({-1}, /*keepdim=*/true);
  y.copy_(weight * (wide * at::rsqrt(variance + eps)).to(x.scalar_type()));
}

void AddRmsNormReference(const at::Tensor& x, const at::Tensor& residual, const at::Tensor& weight,
                         float eps, const at::Tensor& y) {
  residual.add_(x);
  RmsNormReference(residual, weight, eps, y);
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

void SiluMulReference(const at::Tensor& gate_up, const at::Tensor& y) {
  const int64_t width = gate_up.size(1) / 2;
  y.copy_(at::silu(gate_up.narrow(1, 0, width).to(at::kFloat)) *
          gate_up.narrow(1, width, width).to(at::kFloat));
}

}  // namespace tenon
