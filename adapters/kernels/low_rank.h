// The grouped low-rank update: y += s * up(down(x)), for the segments of a batch.
#ifndef TENON_ADAPTERS_KERNELS_LOW_RANK_H_
#define TENON_ADAPTERS_KERNELS_LOW_RANK_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

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
