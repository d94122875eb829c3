// The grouped low-rank update: y += s * up(down(x)), for the segments of a batch.
#ifndef TENON_ADAPTERS_KERNELS_LOW_RANK_H_
#define TENON_ADAPTERS_KERNELS_LOW_RANK_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "adapters/kernels/low_rank_delta.h"
#include "adapters/kernels/packed_matrix.h"

namespace tenon {

/// A run of token rows that one delta applies to. Several terms may cover the same rows
/// (composition).
struct LowRankTerm {
  int64_t begin = 0, end = 0;           ///< rows of x and y
  const LowRankDelta* delta = nullptr;  ///< never null
  float weight = 1.0f;                  ///< the request's factor, multiplied with delta->scaling
};

/// Adds each term's update in place (Punica SGMV, arXiv:2310.18547):
///   y[begin:end] += weight * scaling * (x[begin:end] @ down^T) @ up^T      (no down when dense)
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

/// Low-rank terms that become part of a product with their input: the product's threads compute the
/// first half before its tasks, and the second one where PackedMatrix::Multiply has the sums at
/// hand. Against ApplyLowRank it saves a job, a round trip of y through memory, and a rounding.
/// Borrows the deltas; the terms, and x as it is, until a product has had the updates.
class LowRankUpdate {
 public:
  struct Term {
    LowRankTerm term;    ///< rows of x; its delta has packed_up
    int64_t column = 0;  ///< of the product's output, where the delta's first goes
  };

  LowRankUpdate();  ///< nothing
  /// x as for ApplyLowRank. Throws c10::Error on a shape or dtype that does not fit.
  LowRankUpdate(const at::Tensor& x, std::span<const Term> terms);
  LowRankUpdate(LowRankUpdate&&);
  LowRankUpdate& operator=(LowRankUpdate&&);
  ~LowRankUpdate();

  /// Whether a delta's outputs may begin at that column of a product.
  static bool Fits(int64_t column);

  /// In the order of the terms.
  ProductUpdates updates() const;

 private:
  class Shrinking;

  std::unique_ptr<Shrinking> shrinking_;  // null for nothing
  std::vector<PanelUpdate> panels_;
};

/// The same in plain ATen operations: defines what is correct, runs on any device.
void ApplyLowRankReference(const at::Tensor& x, std::span<const LowRankTerm> terms,
                           const at::Tensor& y);

}  // namespace tenon

#endif  // TENON_ADAPTERS_KERNELS_LOW_RANK_H_
