// The grouped low-rank update: y += s * up(down(x)), for the segments of a batch.
#ifndef TENON_ADAPTERS_KERNELS_LOW_RANK_H_
#define TENON_ADAPTERS_KERNELS_LOW_RANK_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>

#include "absl/status/statusor.h"
#include "adapters/kernels/packed_matrix.h"

namespace tenon {

/// One site of one adapter: y += scaling * (x @ down^T) @ up^T (LoRA, arXiv:2106.09685).
struct LowRankDelta {
  at::Tensor down;       ///< [rank, in], the base model's dtype, contiguous
  at::Tensor up;         ///< [out, rank], the base model's dtype, contiguous
  float scaling = 1.0f;  ///< alpha / rank, or alpha / sqrt(rank) for rsLoRA
  /// `up` once more, as the CPU kernels read it. They lay it out anew in every call when it is
  /// undefined, with the same result: what Create spares.
  PackedMatrix packed_up = {};

  /// A delta with packed_up. down and up are kept: [rank, in] and [out, rank] on the CPU, one
  /// dtype, fp32 or bf16, contiguous. Errors: INVALID_ARGUMENT.
  static absl::StatusOr<LowRankDelta> Create(at::Tensor down, at::Tensor up, float scaling);

  bool defined() const { return down.defined(); }
  int64_t rank() const { return down.size(0); }
  int64_t nbytes() const {
    return static_cast<int64_t>(down.nbytes() + up.nbytes()) + packed_up.nbytes();
  }
};

/// A run of token rows that one delta applies to. Several terms may cover the same rows
/// (composition).
struct LowRankTerm {
  int64_t begin = 0, end = 0;           ///< rows of x and y
  const LowRankDelta* delta = nullptr;  ///< never null
  float weight = 1.0f;                  ///< the request's factor, multiplied with delta->scaling
};

/// Adds each term's update in place (Punica SGMV, arXiv:2310.18547):
///   y[begin:end] += weight * scaling * (x[begin:end] @ down^T) @ up^T
/// x  [num_tokens, in] fp32/bf16, contiguous within a row.
/// y  [num_tokens, out] same dtype, contiguous within a row, row stride >= out (a column slice of a
///    wider tensor is fine); must not alias x.
/// Rows that no term covers keep their bits. Terms that share rows are added in their order.
/// Each output row depends only on its own x row and deltas, bit for bit, whatever else the call
/// holds.
/// For bf16 both products, the scaling and the addition are in fp32, and each term is rounded once,
/// into y. PEFT in bf16 rounds after each of the four, so its last bits differ.
/// Throws c10::Error on a shape or dtype that does not fit; y is then untouched.
void ApplyLowRank(const at::Tensor& x, std::span<const LowRankTerm> terms, const at::Tensor& y);

/// The same in plain ATen operations: defines what is correct, runs on any device.
void ApplyLowRankReference(const at::Tensor& x, std::span<const LowRankTerm> terms,
                           const at::Tensor& y);

}  // namespace tenon

#endif  // TENON_ADAPTERS_KERNELS_LOW_RANK_H_
