// LowRankDelta: the matrices of a low-rank update at one site, as kernels read them.
#ifndef TENON_ADAPTERS_KERNELS_LOW_RANK_DELTA_H_
#define TENON_ADAPTERS_KERNELS_LOW_RANK_DELTA_H_

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "adapters/kernels/packed_matrix.h"

namespace tenon {

/// One site of one adapter: y += scaling * (x @ down^T) @ up^T (LoRA, arXiv:2106.09685), or, when
/// dense, y += scaling * x @ up^T.
struct LowRankDelta {
  /// [rank, in], the base model's dtype, contiguous; undefined when dense or when down_pairs holds
  /// it.
  at::Tensor down;
  /// [out, rank], the base model's dtype, contiguous; [out, in] when dense. Undefined when
  /// packed_up holds it.
  at::Tensor up;
  float scaling = 1.0f;  ///< alpha / rank, or alpha / sqrt(rank) for rsLoRA
  /// `up` as the CPU kernels read it: what Create makes. They lay out `up` anew in every call when
  /// it is undefined, with the same result.
  PackedMatrix packed_up = {};
  /// `down` as AVX512-BF16 and AMX read it, [ceil(in / 2), rank, 2]: two consecutive inputs
  /// together and zero behind an odd one. What Create makes for bf16 where the CPU has either.
  at::Tensor down_pairs = {};
  int64_t num_inputs = 0;  ///< in, when down_pairs holds them

  /// A delta with packed_up and no `up`, and with down or down_pairs. down is [rank, in] on the
  /// CPU; up is [out, rank]; one dtype, fp32 or bf16, contiguous. Errors: INVALID_ARGUMENT.
  static absl::StatusOr<LowRankDelta> Create(at::Tensor down, const at::Tensor& up, float scaling);
  /// A dense delta: matrix [out, in], likewise.
  static absl::StatusOr<LowRankDelta> CreateDense(const at::Tensor& matrix, float scaling);

  /// The same delta on `device`, as the reference and the kernels there read it: `down` by rows,
  /// `up` as it is kept here.
  LowRankDelta OnDevice(at::Device device) const;

  /// Exchanges the tensors of the first product, or of the second, for what `relocate` makes of
  /// them: the same elsewhere in memory.
  void RelocateDown(absl::FunctionRef<at::Tensor(const at::Tensor&)> relocate);
  void RelocateUp(absl::FunctionRef<at::Tensor(const at::Tensor&)> relocate);

  bool defined() const { return up.defined() || packed_up.defined(); }
  bool dense() const { return !down.defined() && !down_pairs.defined(); }
  /// The inner size: that of x itself when dense.
  int64_t rank() const { return packed_up.defined() ? packed_up.in_features() : up.size(1); }
  int64_t in_features() const {
    return dense() ? rank() : (down.defined() ? down.size(1) : num_inputs);
  }
  int64_t out_features() const {
    return packed_up.defined() ? packed_up.out_features() : up.size(0);
  }
  at::ScalarType dtype() const {
    return packed_up.defined() ? packed_up.dtype() : up.scalar_type();
  }
  /// `up`, unpacked when it is packed: [out, rank] (a copy then).
  at::Tensor UpMatrix() const { return packed_up.defined() ? packed_up.Unpack() : up; }
  /// `down`, unpacked when it is packed: [rank, in] (a copy then). REQUIRES: !dense().
  at::Tensor DownMatrix() const;
  int64_t nbytes() const;
};

}  // namespace tenon

#endif  // TENON_ADAPTERS_KERNELS_LOW_RANK_DELTA_H_
