// The grouped low-rank update: y += s * up(down(x)), for the segments of a batch.
#ifndef TENON_ADAPTERS_KERNELS_LOW_RANK_H_
#define TENON_ADAPTERS_KERNELS_LOW_RANK_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>

#include "absl/status/statusor.h"

namespace tenon {

/// One site of one adapter: y += scaling * (x @ down^T) @ up^T (LoRA, arXiv:2106.09685).
struct LowRankDelta {
  at::Tensor down;       ///< [rank, in], the base model's dtype, contiguous
  at::Tensor up;         ///< [out, rank], the base model's dtype, contiguous
  float scaling = 1.0f;  ///< alpha / rank, or alpha / sqrt(rank) for rsLoRA

  bool defined() const { return down.defined(); }
  int64_t rank() const { return down.size(0); }
  int64_t nbytes() const { return static_cast<int64_t>(down.nbytes() + up.nbytes()); }
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
/// x  [num_tokens, in] fp32/bf16, rows contiguous.
/// y  [num_tokens, out] same dtype, rows contiguous, row stride >= out (a column slice of a wider
/// tensor is fine);
///    must not alias x.
/// Rows that no term covers keep their bits. Accumulates in fp32. Each output row depends only on
/// its own x row and delta.
void ApplyLowRank(const at::Tensor& x, std::span<const LowRankTerm> terms, const at::Tensor& y);

/// The same in plain ATen operations: defines what is correct, runs on any device.
void ApplyLowRankReference(const at::Tensor& x, std::span<const LowRankTerm> terms,
                           const at::Tensor& y);

}  // namespace tenon

#endif  // TENON_ADAPTERS_KERNELS_LOW_RANK_H_
