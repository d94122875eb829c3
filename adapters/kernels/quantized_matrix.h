// QuantizedMatrix: a weight matrix in int8, and the product of rows that are quantized on the fly.
#ifndef TENON_ADAPTERS_KERNELS_QUANTIZED_MATRIX_H_
#define TENON_ADAPTERS_KERNELS_QUANTIZED_MATRIX_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>

#include "absl/status/statusor.h"
#include "adapters/kernels/packed_matrix.h"

namespace tenon {

/// A matrix W [out, in] as int8 with a scale for each output (symmetric: W[o, i] is about
/// scale[o] * q[o, i], scale[o] = max_i |W[o, i]| / 127), in panels of 32 outputs. Rows of x get a
/// scale each in the same way when they are multiplied (LLM.int8(), arXiv:2208.07339, without its
/// outliers). Sums are exact in int32, so a row's result has the same bits at 1 row and at 1000,
/// and on any instruction set.
///
/// Thread-safe: immutable after Quantize. A copy shares the panels.
class QuantizedMatrix {
 public:
  QuantizedMatrix() = default;  ///< undefined

  /// weights as for PackedMatrix::Pack. Errors: INVALID_ARGUMENT on what that refuses, on a value
  /// that is not finite and on more than 131072 inputs, whose sums might not fit int32.
  static absl::StatusOr<QuantizedMatrix> Quantize(std::span<const at::Tensor> weights);

  /// y = x @ W^T + updates + bias, as PackedMatrix::Multiply. x and y are fp32 or bf16, whichever
  /// the weights were; the updates are of that dtype.
  void Multiply(const at::Tensor& x, const at::Tensor& bias, const at::Tensor& y,
                const ProductUpdates& updates = {}, int64_t first_row = 0) const;

  /// scale * q for `index` [R] int64: [R, in], the weights' dtype. Throws c10::Error when an index
  /// is not in [0, out).
  at::Tensor Rows(const at::Tensor& index) const;
  /// scale * q [out, in], the weights' dtype.
  at::Tensor Unpack() const;

  int64_t in_features() const { return in_features_; }
  int64_t out_features() const { return scales_.size(0); }
  at::ScalarType dtype() const { return dtype_; }
  int64_t nbytes() const;
  /// [num_panels, padded in / 4, 32, 4] int8, zero where there is no weight.
  const at::Tensor& panels() const { return panels_; }

 private:
  int64_t in_features_ = 0;
  at::ScalarType dtype_ = at::ScalarType::Undefined;
  at::Tensor panels_;
  at::Tensor scales_;  // [out] fp32
};

}  // namespace tenon

#endif  // TENON_ADAPTERS_KERNELS_QUANTIZED_MATRIX_H_
