// The inner loops of matrix products, one table of functions per instruction set.
#ifndef TENON_ADAPTERS_KERNELS_GEMM_KERNELS_H_
#define TENON_ADAPTERS_KERNELS_GEMM_KERNELS_H_

#include <cstdint>

#include "adapters/kernels/cpu_isa.h"

namespace tenon {

/// Output columns of a panel of a packed matrix: two AVX-512 vectors.
inline constexpr int64_t kPanelColumns = 32;
/// Rows that a tile kernel takes at once: 12 x 2 accumulators fill AVX-512's 32 registers; two of
/// AMX's tiles.
inline constexpr int64_t kVectorTileRows = 12;
inline constexpr int64_t kAmxTileRows = 32;
inline constexpr int64_t kMaxTileRows = kAmxTileRows;

/// Writes a tile of fp32 sums to its place:
///   y[r, c] = bias[c] + tile[r, c]            when not accumulating
///   y[r, c] = y[r, c] + scale * tile[r, c]    when accumulating
/// in fp32, rounded once.
template <typename T>
struct TileStore {
  const float* tile = nullptr;  ///< [rows, columns], rows tile_stride apart
  int64_t tile_stride = 0;
  int64_t rows = 0, columns = 0;
  T* y = nullptr;  ///< rows y_stride apart
  int64_t y_stride = 0;
  const float* bias = nullptr;  ///< [columns] or null; unused when accumulating
  bool accumulate = false;
  float scale = 1.0f;  ///< unused when not accumulating
};

/// Consecutive k of an int8 row or panel come in groups of so many, the last padded with zeros.
inline constexpr int64_t kInt8Group = 64;

/// tile[r, 32 * p + c] = x_scales[r] * w_scales[32 * p + c] * sum_k x[r, k] * panel_p[k, c]
/// The sum is exact.
struct Int8Tile {
  const int8_t* x = nullptr;  ///< [rows, k], contiguous
  const float* x_scales = nullptr;
  int64_t rows = 0;
  int64_t k = 0;                   ///< a multiple of kInt8Group
  const int8_t* panels = nullptr;  ///< panel_p at panels + p * panel_stride: [k / 4, 32, 4]
  int64_t panel_stride = 0;
  const float* w_scales = nullptr;
  int64_t num_panels = 0;
  float* tile = nullptr;
  int64_t tile_stride = 0;
};

/// Consecutive bytes of memory.
struct MemoryRun {
  const char* begin;
  const char* end;  ///< behind begin
};

/// Memory that a product fetches into the second-level cache while it computes, line by line.
/// Borrows the runs. Its functions are never functions of their own: files for other instruction
/// sets use them.
class FetchList {
 public:
  FetchList() = default;  ///< nothing
  __attribute__((always_inline)) FetchList(const MemoryRun* first, const MemoryRun* last)
      : next_(first), last_(last) {
    NextRun();
  }

  /// Fetches the next line, if there is one.
  __attribute__((always_inline)) void FetchOne() {
    if (at_ < end_) {
      __builtin_prefetch(at_, 0, 2);
      at_ += kLine;
      if (at_ >= end_) {
        NextRun();
      }
    }
  }
  __attribute__((always_inline)) void FetchSome(int64_t count) {
    for (; count > 0 && at_ < end_; --count) {
      FetchOne();
    }
  }
  __attribute__((always_inline)) void FetchAll() {
    while (at_ < end_) {
      FetchOne();
    }
  }
  /// How many there are.
  __attribute__((always_inline)) int64_t num_lines() const {
    int64_t lines = (end_ - at_ + kLine - 1) / kLine;
    for (const MemoryRun* run = next_; run != last_; ++run) {
      lines += (run->end - run->begin + kLine - 1) / kLine;
    }
    return lines;
  }

 private:
  static constexpr int64_t kLine = 64;

  __attribute__((always_inline)) void NextRun() {
    if (next_ != last_) {
      at_ = next_->begin;
      end_ = next_->end;
      ++next_;
    }
  }

  const char *at_ = nullptr, *end_ = nullptr;  // of the run that is being fetched
  const MemoryRun *next_ = nullptr, *last_ = nullptr;
};

/// bf16 is uint16_t here; strides count elements. Every sum is taken over k in one order that
/// depends on k and the instruction set alone, never on the number of rows or columns of the call.
struct GemmKernels {
  /// tile[r, 32 * p + c] = sum_k x[r, k] * panel_p[k, c]
  ///   x       [rows <= tile_rows, k], rows x_stride apart
  ///   panels  panel_p begins at panels + p * panel_stride: fp32 [k, 32]; bf16 [ceil(k / 2), 32,
  ///   2],
  ///           two consecutive k next to each other, zero behind an odd k
  ///   tile    [rows, 32 * num_panels], rows tile_stride apart
  ///   fetch   is taken from as far as the product is long
  int64_t tile_rows = kVectorTileRows;
  template <typename X, typename W>
  using Tile = void (*)(const X* x, int64_t x_stride, int64_t rows, const W* panels,
                        int64_t panel_stride, int64_t num_panels, int64_t k, float* tile,
                        int64_t tile_stride, FetchList& fetch);
  Tile<float, float> tile_f32 = nullptr;
  Tile<float, uint16_t> tile_f32_bf16 = nullptr;
  Tile<uint16_t, uint16_t> tile_bf16 = nullptr;  ///< null where x must be widened first

  /// tile[r, 32 * p + c] += scale * sum_j shrunk[r, j] * panel_p[j, c]
  ///   shrunk  [rows <= tile_rows, rank] fp32, contiguous; panels as above, of k = rank
  template <typename W>
  using Expand = void (*)(const float* shrunk, int64_t rows, const W* panels, int64_t panel_stride,
                          int64_t num_panels, int64_t rank, float scale, float* tile,
                          int64_t tile_stride);
  Expand<float> expand_f32 = nullptr;
  Expand<uint16_t> expand_bf16 = nullptr;

  void (*store_f32)(const TileStore<float>& store) = nullptr;
  void (*store_bf16)(const TileStore<uint16_t>& store) = nullptr;

  /// out[r, n] = sum_k x[r, k] * w[n, k]: both as they are, rows contiguous.
  ///   x [rows, k] rows x_stride apart, w [columns, k], out [rows, columns] rows out_stride apart
  template <typename T>
  using Dot = void (*)(const T* x, int64_t x_stride, int64_t rows, const T* w, int64_t w_stride,
                       int64_t columns, int64_t k, float* out, int64_t out_stride);
  Dot<float> dot_f32 = nullptr;
  Dot<uint16_t> dot_bf16 = nullptr;

  /// out[r, c] = sum_k x[r, k] * w[k / 2, c, k % 2]
  ///   x [rows, k] rows x_stride apart, w [ceil(k / 2), columns, 2], zero behind an odd k,
  ///   out [rows, columns] contiguous
  ///   next  what will be read after w: its beginning is fetched meanwhile; null for nothing
  /// Null where dot_bf16 does, which needs no other layout.
  void (*pairs_bf16)(const uint16_t* x, int64_t x_stride, int64_t rows, const uint16_t* w,
                     int64_t columns, int64_t k, float* out, const void* next) = nullptr;

  void (*tile_int8)(const Int8Tile& tile) = nullptr;
  /// q[i] = x[i] / scale to the nearest, ties to even; returns scale = max_i |x[i]| / 127. A row of
  /// zeros has scale 0; one with a NaN or an infinity has no finite scale, and q is unspecified.
  template <typename T>
  using Quantize = float (*)(const T* x, int64_t n, int8_t* q);
  Quantize<float> quantize_f32 = nullptr;
  Quantize<uint16_t> quantize_bf16 = nullptr;

  void (*widen)(const uint16_t* x, int64_t n, float* y) = nullptr;
};

/// The table of ActiveIsa().
const GemmKernels& ActiveGemmKernels();

extern const GemmKernels kGemmPortable;
#if defined(__x86_64__)
extern const GemmKernels kGemmAvx2;
extern const GemmKernels kGemmAvx512;
extern const GemmKernels kGemmAvx512Vnni;
extern const GemmKernels kGemmAvx512Bf16;
extern const GemmKernels kGemmAmx;
#endif

}  // namespace tenon

#endif  // TENON_ADAPTERS_KERNELS_GEMM_KERNELS_H_
