// The adapters' part of libtenon_cuda.so, as the server sees it: plain structs, no LibTorch, no
// CUDA.
#ifndef TENON_ADAPTERS_KERNELS_CUDA_ADAPTER_KERNELS_H_
#define TENON_ADAPTERS_KERNELS_CUDA_ADAPTER_KERNELS_H_

#include <cstdint>

namespace tenon::cuda {

/// Of activations and weights; sums are fp32.
enum class ElementType : int32_t { kFloat32, kBFloat16 };

/// Rows and columns of the matrices that tensor cores multiply.
inline constexpr int32_t kMatrixEdge = 16;

/// Rows that one block works on, so that it reads a delta's matrices once for them.
inline constexpr int32_t kGroupRows = 8;

/// One adapter's delta on the rows of one group. Pointers are the device's.
struct DeltaTerm {
  const void* down;      ///< [rank, in], contiguous; null for a dense delta, whose rank is in
  const void* up;        ///< panels of [columns, rank] (PackedMatrix)
  const float* gain;     ///< [columns], or null for zeros
  const float* offset;   ///< [columns], or null for zeros
  int64_t panel_stride;  ///< elements from one panel of `up` to the next
  int64_t shrunk_begin;  ///< its [num_rows, rank] part of DeltaCall::shrunk
  int32_t rank;          ///< 0: no low-rank part
  float scale;           ///< of the low-rank part, with the weight in it
  float weight;          ///< of gain and offset
};

/// At most kGroupRows rows of one segment at one site, and the deltas that they all have.
struct RowGroup {
  int32_t row_begin, num_rows;
  int32_t term_begin, term_end;       ///< into the call's terms or entries
  int32_t column_begin, num_columns;  ///< of y
  bool is_tiled;                      ///< a RowTile has the first half of its deltas
};

/// Full groups of one segment, one behind another, an even number of at most kTileGroups, whose
/// terms are low-rank or have no such part. Their first halves are computed on tensor cores.
struct RowTile {
  int32_t group_begin, num_groups;  ///< into the call's groups
};
inline constexpr int32_t kTileGroups = 8;

/// For the rows and columns of each group, i running over its terms:
///   y = y * (1 + sum_i weight_i * gain_i) + sum_i weight_i * offset_i
///       + sum_i scale_i * (x @ down_i^T) @ up_i^T
/// (segmented: Punica's SGMV, arXiv:2310.18547). Groups are disjoint in y. All sums are fp32, each
/// in one order; the result is rounded once into y. A row's bits depend on its own rows of x and y,
/// its terms, and on whether it is in a tile.
struct DeltaCall {
  ElementType type;
  int32_t in_features;
  const void* x;  ///< [T, in], contiguous within a row
  int64_t x_stride;
  void* y;  ///< [T, out], contiguous within a row; must not alias x
  int64_t y_stride;
  const DeltaTerm* terms;  ///< device memory, as are the groups
  const RowGroup* groups;
  int32_t num_groups;
  const RowTile* tiles;  ///< for bf16, with in_features and x_stride multiples of kMatrixEdge
  int32_t num_tiles;
  int32_t max_rank;     ///< of the terms that are not dense, 1 if only such are; 0: x is not read
  int32_t max_columns;  ///< of the groups
  float* shrunk;        ///< device memory, written before it is read
};

enum class BottleneckFunction : int32_t {  ///< BottleneckActivation
  kIdentity,
  kRelu,
  kLeakyRelu,
  kGelu,
  kGeluTanh,
  kSilu,
  kTanh,
};
enum class BottleneckSource : int32_t { kOutput, kOutputPlusResidual, kResidual };  ///< input
enum class BottleneckSkip : int32_t { kOutput, kInput, kOutputPlusResidual };       ///< residual

/// An affine layer norm over [hidden] elements; null: none.
struct AffineNorm {
  const float* weight;
  const float* bias;
};

/// One adapter's bottleneck module (BottleneckDelta) on the rows of one group.
struct BottleneckEntry {
  const void* down;                ///< panels of [width, hidden] (PackedMatrix)
  const void* up;                  ///< panels of [hidden, width]
  int64_t down_stride, up_stride;  ///< elements from one panel to the next
  const float* down_bias;          ///< [width]
  const float* up_bias;            ///< [hidden]
  const float* scale;              ///< [hidden]
  const float* input_norm;         ///< [hidden], or null
  float input_norm_eps;
  AffineNorm norm_before, norm_after;
  BottleneckFunction function;
  BottleneckSource source;
  BottleneckSkip skip;
  bool adds_residual_before_norm, drops_stream;
  int32_t width;
  float weight;
  int64_t rows_begin;   ///< its [num_rows, hidden] part of BottleneckCall::inputs and values
  int64_t inner_begin;  ///< its [num_rows, width] part of BottleneckCall::inner
};

/// For the rows of each group, i running over its terms, which index `entries`:
///   out += sum_i weight_i * update_i(residual, out)      (bottleneck.h)
/// All terms of a row read `out` as it came in. Groups are disjoint. All sums are fp32, each in one
/// order; the result is rounded once into out. A row's bits depend on its own rows and modules
/// alone.
struct BottleneckCall {
  ElementType type;
  int32_t hidden;
  const void* residual;  ///< [T, hidden], contiguous within a row
  int64_t residual_stride;
  void* out;  ///< [T, hidden], contiguous within a row; must not alias residual
  int64_t out_stride;
  const BottleneckEntry* entries;  ///< device memory, as all that follows
  const RowGroup* groups;          ///< their columns are not read
  int32_t num_groups;
  int32_t max_rows;   ///< of the groups
  int32_t max_width;  ///< of the entries
  float* inputs;      ///< what modules read; all three are written before they are read
  float* values;
  float* inner;
};

/// Functions run on the CUDA stream given and return null, or what is wrong.
struct AdapterKernels {
  const char* (*apply_deltas)(const DeltaCall& call, void* stream);
  const char* (*apply_bottlenecks)(const BottleneckCall& call, void* stream);
};

}  // namespace tenon::cuda

/// The name under which the library has its table: a function `const AdapterKernels*()`.
#define TENON_ADAPTER_KERNELS_SYMBOL "tenon_adapter_kernels_3"
extern "C" const tenon::cuda::AdapterKernels* tenon_adapter_kernels_3();

#endif  // TENON_ADAPTERS_KERNELS_CUDA_ADAPTER_KERNELS_H_
