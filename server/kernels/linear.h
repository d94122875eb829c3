// Linear: y = x @ W^T + b, with the weights laid out once for the machine that runs them.
#ifndef TENON_SERVER_KERNELS_LINEAR_H_
#define TENON_SERVER_KERNELS_LINEAR_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "adapters/kernels/packed_matrix.h"
#include "adapters/kernels/quantized_matrix.h"

namespace tenon {

/// Which implementation of an operation runs.
enum class KernelKind {
  kReference,  ///< plain ATen operations: any device; defines what is correct
  kCpu,        ///< Tenon's own: CPU tensors, batch-invariant
  kCuda,       ///< Tenon's own on a GPU, the base's products LibTorch's
};

/// How a linear layer keeps its weights.
enum class WeightFormat {
  kAsGiven,  ///< in their own dtype
  kInt8,     ///< QuantizedMatrix; with KernelKind::kCpu only
};

/// One linear layer, or several with the same input fused along the output (q/k/v, gate/up).
///
/// Thread-safe: immutable after Create. A copy shares the weights.
/// kCpu: every output element is accumulated over the inputs in one fixed order in fp32 and rounded
/// once, so that a row of y depends on its own row of x alone, bit for bit, whatever shares the
/// call.
///
///   TENON_ASSIGN_OR_RETURN(Linear qkv, Linear::Create({wq, wk, wv}, {}, KernelKind::kCpu));
///   qkv.Forward(x, y);                                  // x [T, in], y [T, q + k + v]
class Linear {
 public:
  Linear() = default;  ///< of no use but to be assigned to

  /// weights  each [out_i, in] fp32 or bf16, one dtype for all, rows contiguous; stacked along out
  ///          in order. May be views of a read-only mapped file of any alignment: kCpu copies them
  ///          and keeps no reference; the others keep them (one weight) or a stacked copy,
  ///          on the device where they lie.
  /// biases   empty, or one per weight: [out_i], or undefined for none.
  /// Errors: INVALID_ARGUMENT on a shape, dtype or device that does not fit, on kInt8 with other
  /// kernels or weights that are not finite.
  static absl::StatusOr<Linear> Create(std::vector<at::Tensor> weights,
                                       std::vector<at::Tensor> biases, KernelKind kind,
                                       WeightFormat format = WeightFormat::kAsGiven);

  /// y = x @ W^T + updates + b.
  /// x  [T, in]   the weights' dtype, contiguous within a row, row stride >= in.
  /// y  [T, out]  the same dtype, contiguous within a row, row stride >= out; must not alias x.
  /// updates  for kCpu only, as PackedMatrix::Multiply takes them.
  /// T may be 0. Throws c10::Error when a shape or dtype does not fit.
  void Forward(const at::Tensor& x, const at::Tensor& y, const ProductUpdates& updates = {},
               int64_t first_row = 0) const;

  /// Says that Forward comes next or soon, for threads that are idle until then.
  void FetchWhileIdle() const;

  /// Rows of W: [R, in], the weights' dtype, for `index` [R] int64, each in [0, out). For a matrix
  /// that is an embedding as well. Throws c10::Error when an index is out of range.
  at::Tensor Rows(const at::Tensor& index) const;

  int64_t in_features() const { return in_features_; }
  int64_t out_features() const { return out_features_; }
  at::ScalarType dtype() const { return dtype_; }
  /// Bytes of weights and biases as they are kept.
  int64_t nbytes() const;

  /// W [out, in], the weights' dtype, as rounded to int8 if so: a copy for kCpu, else not to be
  /// written to.
  at::Tensor Weight() const;
  /// b [out], or undefined; fp32 for kCpu, else the weights' dtype. Not to be written to.
  const at::Tensor& bias() const { return bias_; }

 private:
  int64_t in_features_ = 0;
  int64_t out_features_ = 0;
  at::ScalarType dtype_ = at::ScalarType::Undefined;
  at::Tensor weight_;                                 // [out, in], not for kCpu
  std::shared_ptr<const PackedMatrix> packed_;        // kCpu only
  std::shared_ptr<const QuantizedMatrix> quantized_;  // kCpu and kInt8 only
  at::Tensor bias_;  // [out] or undefined; fp32 for kCpu, else the weights' dtype
};

}  // namespace tenon

#endif  // TENON_SERVER_KERNELS_LINEAR_H_
