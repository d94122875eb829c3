// PackedMatrix: a weight matrix laid out for the CPU's vector units, and the product with it.
#ifndef TENON_ADAPTERS_KERNELS_PACKED_MATRIX_H_
#define TENON_ADAPTERS_KERNELS_PACKED_MATRIX_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"

namespace tenon {

class PackedMatrix;

/// The second half of a low-rank update (low_rank.h), added to a product's fp32 sums before these
/// are rounded:  sums[begin:end, column:column + up.out] += scale * shrunk @ up^T
struct PanelUpdate {
  int64_t begin, end;      ///< rows
  int64_t column;          ///< a multiple of 32
  const PackedMatrix* up;  ///< [columns, rank], the product's dtype
  const float* shrunk;     ///< [end - begin, rank], contiguous
  float scale;
  // Of `up`, beside the rest: every tile of a product looks at every update.
  const void* panels;
  int64_t panel_stride, num_panels, rank;

  PanelUpdate(int64_t first_row, int64_t row_end, int64_t first_column,
              const PackedMatrix* packed_up, const float* rows, float factor);
};

class SharedTasks;

/// What a product adds to its sums. Borrows both.
struct ProductUpdates {
  std::span<const PanelUpdate> panels;
  SharedTasks* before = nullptr;  ///< makes what they call `shrunk`; null when that is there
};

/// A matrix W [out, in], fp32 or bf16, cut into panels of 32 output columns, each stored with the
/// input index running slowest. bf16 panels hold two consecutive inputs next to each other, the
/// operand of AVX512-BF16's dot product. The last panel is padded with zeros.
///
/// Thread-safe: immutable after Pack. A copy shares the panels.
/// The order in which an output element is accumulated depends on nothing but the number of inputs
/// and the instruction set: a row's result has the same bits at 1 row and at 1000.
class PackedMatrix {
 public:
  PackedMatrix() = default;  ///< undefined

  /// weights  each [out_i, in] fp32 or bf16 on the CPU, one dtype and one `in`, contiguous within a
  ///          row, any alignment; stacked along out in order. Not kept.
  /// Errors: INVALID_ARGUMENT.
  static absl::StatusOr<PackedMatrix> Pack(std::span<const at::Tensor> weights);

  /// y = x @ W^T + updates + bias.
  /// x     [T, in]  W's dtype, contiguous within a row.
  /// bias  [out] fp32, contiguous, or undefined for none.
  /// y     [T, out] W's dtype, contiguous within a row; must not alias x.
  /// updates  in the order in which those that share a row are added. Their rows count from
  ///          first_row before x's first; what lies outside of x's is left out.
  /// Accumulates in fp32, rounds once. Throws c10::Error on a shape or dtype that does not fit.
  void Multiply(const at::Tensor& x, const at::Tensor& bias, const at::Tensor& y,
                const ProductUpdates& updates = {}, int64_t first_row = 0) const;

  /// W [out, in] as it was packed, a copy. REQUIRES: defined().
  at::Tensor Unpack() const;
  /// Rows of W as they were packed: [R, in], W's dtype, for `index` [R] int64. Throws c10::Error
  /// when an index is not in [0, out).
  at::Tensor Rows(const at::Tensor& index) const;

  /// The same matrix with its panels on `device`: itself when they are there. Of the members only
  /// Unpack works elsewhere than on the CPU.
  PackedMatrix OnDevice(at::Device device) const;

  /// Exchanges the panels for what `relocate` makes of them: the same elsewhere in memory.
  void Relocate(absl::FunctionRef<at::Tensor(const at::Tensor&)> relocate) {
    panels_ = relocate(panels_);
  }

  bool defined() const { return panels_.defined(); }
  int64_t in_features() const { return in_features_; }
  int64_t out_features() const { return out_features_; }
  int64_t num_panels() const { return panels_.size(0); }
  /// Elements from one panel to the next.
  int64_t panel_stride() const { return panels_.stride(0); }
  /// [num_panels, ceil(in / g), 32, g], g = 1 for fp32 and 2 for bf16.
  const at::Tensor& panels() const { return panels_; }
  at::ScalarType dtype() const { return panels_.scalar_type(); }
  int64_t nbytes() const { return defined() ? static_cast<int64_t>(panels_.nbytes()) : 0; }

 private:
  int64_t in_features_ = 0;
  int64_t out_features_ = 0;
  at::Tensor panels_;
};

}  // namespace tenon

#endif  // TENON_ADAPTERS_KERNELS_PACKED_MATRIX_H_
