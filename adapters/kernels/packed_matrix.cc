#include "adapters/kernels/packed_matrix.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/linear.h>

#include <vector>

namespace tenon {

absl::StatusOr<PackedMatrix> PackedMatrix::Pack(std::span<const at::Tensor> weights) {
  PackedMatrix matrix;
  matrix.panels_ = at::cat(std::vector<at::Tensor>(weights.begin(), weights.end()));
  matrix.in_features_ = matrix.panels_.size(1);
  matrix.out_features_ = matrix.panels_.size(0);
  return matrix;
}

void PackedMatrix::Multiply(const at::Tensor& x, const at::Tensor& bias,
                            const at::Tensor& y) const {
  at::Tensor product = at::linear(x, panels_);
  y.copy_(bias.defined() ? product.to(at::kFloat) + bias : product);
}

}  // namespace tenon
