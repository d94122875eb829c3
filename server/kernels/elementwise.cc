#include "server/kernels/activation.h"
#include "server/kernels/norm.h"
#include "server/kernels/rope.h"

namespace tenon {

void RmsNorm(const at::Tensor& x, const at::Tensor& weight, float eps, const at::Tensor& y) {
  RmsNormReference(x, weight, eps, y);
}

void AddRmsNorm(const at::Tensor& x, const at::Tensor& residual, const at::Tensor& weight,
                float eps, const at::Tensor& y) {
  AddRmsNormReference(x, residual, weight, eps, y);
}

void ApplyRope(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin,
               const at::Tensor& positions) {
  ApplyRopeReference(x, cos, sin, positions);
}

void SiluMul(const at::Tensor& gate_up, const at::Tensor& y) { SiluMulReference(gate_up, y); }

}  // namespace tenon
