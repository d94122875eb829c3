// The matrix kernels, written once over Vec. Include after one of the vec_*.h, in a file that is
// compiled for its instruction set; internal linkage throughout, as there.
#ifndef TENON_ADAPTERS_KERNELS_GEMM_KERNELS_INL_H_
#define TENON_ADAPTERS_KERNELS_GEMM_KERNELS_INL_H_

#include <bit>
#include <cstdint>

#include "adapters/kernels/gemm_kernels.h"

namespace tenon {
namespace {

// A strip is two vectors of a panel: its whole width for 16 lanes, a half or a quarter for fewer.
constexpr int64_t kStripColumns = 2 * Vec::kLanes;
constexpr int64_t kPanelStrips = kPanelColumns / kStripColumns;
// Rows of one register block: 12 x 2 of 32 registers, 6 x 2 or 4 x 2 of 16.
constexpr int kBlockRows = Vec::kLanes == 16 ? 12 : (Vec::kLanes == 8 ? 6 : 4);
// How far ahead of the multiplication panels are fetched, in bytes: the hardware's own streams
// stop at the end of each page.
constexpr int64_t kPrefetchBytes = 4096;

// Fetches two lines of a panel, into the second-level cache: the panels of a row's product may be
// the same bytes modulo 4096, and ahead in the first-level one they would push each other out.
inline __attribute__((always_inline)) void FetchAhead(const void* at) {
  __builtin_prefetch(static_cast<const char*>(at) + kPrefetchBytes, 0, 2);
  __builtin_prefetch(static_cast<const char*>(at) + kPrefetchBytes + 64, 0, 2);
}

// acc[i, j] += x[i] * w[j] for one k.
template <int M, int N>
inline __attribute__((always_inline)) void AddOuterProduct(const float* x, int64_t x_stride,
                                                           const Vec (&w)[N], Vec (&acc)[M][N]) {
#pragma GCC unroll 16
  for (int i = 0; i < M; ++i) {
    const Vec a = Vec::Set(x[i * x_stride]);
#pragma GCC unroll 16
    for (int j = 0; j < N; ++j) {
      acc[i][j] = Fma(a, w[j], acc[i][j]);
    }
  }
}

// fp32 panels and rows, one k a step.
struct PanelsF32 {
  using Weight = float;
  using Input = float;
  static constexpr int64_t kStep = 1;
  template <int M, int N>
  static inline __attribute__((always_inline)) void Step(const float* x, int64_t x_stride,
                                                         const float* const* strips, int64_t,
                                                         Vec (&acc)[M][N]) {
    Vec w[N];
#pragma GCC unroll 16
    for (int j = 0; j < N; ++j) {
      w[j] = Vec::Load(strips[j / 2] + j % 2 * Vec::kLanes);
    }
    AddOuterProduct(x, x_stride, w, acc);
  }
};

// bf16 panels against fp32 rows, two k a step.
struct PanelsBf16Wide {
  using Weight = uint16_t;
  using Input = float;
  static constexpr int64_t kStep = 2;
  template <int M, int N>
  static inline __attribute__((always_inline)) void Step(const float* x, int64_t x_stride,
                                                         const uint16_t* const* strips,
                                                         int64_t valid, Vec (&acc)[M][N]) {
    Vec first[N], second[N];
#pragma GCC unroll 16
    for (int j = 0; j < N; ++j) {
      Vec::LoadPairs(strips[j / 2] + j % 2 * Vec::kLanes * 2, first[j], second[j]);
    }
    AddOuterProduct(x, x_stride, first, acc);
    if (valid == kStep) {
      AddOuterProduct(x + 1, x_stride, second, acc);
    }
  }
};

// What becomes of a block's sums: they are the tile, or are added to it with a factor. Panels are
// fetched ahead where there are many k: behind those of an update lie other things.
struct Overwrite {
  static constexpr bool kFetchesAhead = true;
  void operator()(Vec sum, float* tile) const { sum.Store(tile); }
};
struct AddScaled {
  static constexpr bool kFetchesAhead = false;
  Vec scale;
  void operator()(Vec sum, float* tile) const { Fma(scale, sum, Vec::Load(tile)).Store(tile); }
};

// M rows by P strips, all in registers, k from first to last.
template <typename Panels, int M, int P, typename Finish>
void RegisterBlock(const typename Panels::Input* x, int64_t x_stride,
                   const typename Panels::Weight* panels, int64_t panel_stride, int64_t strip,
                   int64_t k, float* tile, int64_t tile_stride, Finish finish, FetchList& fetch) {
  constexpr int kVecs = 2 * P;
  Vec acc[M][kVecs];
#pragma GCC unroll 16
  for (int i = 0; i < M; ++i) {
#pragma GCC unroll 16
    for (int j = 0; j < kVecs; ++j) {
      acc[i][j] = Vec::Zero();
    }
  }
  const typename Panels::Weight* strips[P];
  for (int p = 0; p < P; ++p) {
    strips[p] = panels + (strip + p) / kPanelStrips * panel_stride +
                (strip + p) % kPanelStrips * kStripColumns * Panels::kStep;
  }
  FetchList list = fetch;  // in registers
  int64_t at = 0;
  for (; at + Panels::kStep <= k; at += Panels::kStep) {
    list.FetchOne();
    Panels::Step(x + at, x_stride, strips, Panels::kStep, acc);
#pragma GCC unroll 16
    for (int p = 0; p < P; ++p) {
      if constexpr (Finish::kFetchesAhead) {
        FetchAhead(strips[p]);
      }
      strips[p] += kPanelColumns * Panels::kStep;
    }
  }
  fetch = list;
  if (at < k) {
    Panels::Step(x + at, x_stride, strips, k - at, acc);
  }
#pragma GCC unroll 16
  for (int i = 0; i < M; ++i) {
#pragma GCC unroll 16
    for (int j = 0; j < kVecs; ++j) {
      finish(acc[i][j], tile + i * tile_stride + strip * kStripColumns + j * Vec::kLanes);
    }
  }
}

// Few rows take several strips at once: their sums must hide the latency of each other's.
template <typename Panels, int M, int64_t P, typename Finish>
void StripsBlock(const typename Panels::Input* x, int64_t x_stride,
                 const typename Panels::Weight* panels, int64_t panel_stride, int64_t strip,
                 int64_t num_strips, int64_t k, float* tile, int64_t tile_stride, Finish finish,
                 FetchList& fetch) {
  for (; strip + P <= num_strips; strip += P) {
    RegisterBlock<Panels, M, P>(x, x_stride, panels, panel_stride, strip, k, tile, tile_stride,
                                finish, fetch);
  }
  if constexpr (P > 1) {
    StripsBlock<Panels, M, P / 2>(x, x_stride, panels, panel_stride, strip, num_strips, k, tile,
                                  tile_stride, finish, fetch);
  }
}

template <typename Panels, int M, typename Finish>
void RowsBlock(const typename Panels::Input* x, int64_t x_stride,
               const typename Panels::Weight* panels, int64_t panel_stride, int64_t num_panels,
               int64_t k, float* tile, int64_t tile_stride, Finish finish, FetchList& fetch) {
  StripsBlock<Panels, M, M >= 4 ? 1 : 4 / M>(x, x_stride, panels, panel_stride, 0,
                                             num_panels * kPanelStrips, k, tile, tile_stride,
                                             finish, fetch);
}

// Calls the register block made for `rows`, which the compiler wants to know.
template <typename Panels, int M, typename Finish>
void DispatchRows(int64_t rows, const typename Panels::Input* x, int64_t x_stride,
                  const typename Panels::Weight* panels, int64_t panel_stride, int64_t num_panels,
                  int64_t k, float* tile, int64_t tile_stride, Finish finish, FetchList& fetch) {
  if (rows == M) {
    RowsBlock<Panels, M>(x, x_stride, panels, panel_stride, num_panels, k, tile, tile_stride,
                         finish, fetch);
  } else if constexpr (M > 1) {
    DispatchRows<Panels, M - 1>(rows, x, x_stride, panels, panel_stride, num_panels, k, tile,
                                tile_stride, finish, fetch);
  }
}

template <typename Panels, typename Finish>
void AllRows(const typename Panels::Input* x, int64_t x_stride, int64_t rows,
             const typename Panels::Weight* panels, int64_t panel_stride, int64_t num_panels,
             int64_t k, float* tile, int64_t tile_stride, Finish finish, FetchList& fetch) {
  for (int64_t row = 0; row < rows; row += kBlockRows) {
    const int64_t block = rows - row < kBlockRows ? rows - row : kBlockRows;
    DispatchRows<Panels, kBlockRows>(block, x + row * x_stride, x_stride, panels, panel_stride,
                                     num_panels, k, tile + row * tile_stride, tile_stride, finish,
                                     fetch);
  }
}

template <typename Panels>
void GemmTile(const typename Panels::Input* x, int64_t x_stride, int64_t rows,
              const typename Panels::Weight* panels, int64_t panel_stride, int64_t num_panels,
              int64_t k, float* tile, int64_t tile_stride, FetchList& fetch) {
  AllRows<Panels>(x, x_stride, rows, panels, panel_stride, num_panels, k, tile, tile_stride,
                  Overwrite(), fetch);
}

template <typename Panels>
void ExpandTile(const float* shrunk, int64_t rows, const typename Panels::Weight* panels,
                int64_t panel_stride, int64_t num_panels, int64_t rank, float scale, float* tile,
                int64_t tile_stride) {
  FetchList nothing;
  AllRows<Panels>(shrunk, rank, rows, panels, panel_stride, num_panels, rank, tile, tile_stride,
                  AddScaled{Vec::Set(scale)}, nothing);
}

template <typename T>
void StoreTile(const TileStore<T>& s) {
  const Vec scale = Vec::Set(s.scale);
  for (int64_t r = 0; r < s.rows; ++r) {
    const float* tile = s.tile + r * s.tile_stride;
    T* y = s.y + r * s.y_stride;
    int64_t c = 0;
    for (; c + Vec::kLanes <= s.columns; c += Vec::kLanes) {
      const Vec sum = Vec::Load(tile + c);
      if (s.accumulate) {
        Fma(scale, sum, Vec::Load(y + c)).Store(y + c);
      } else {
        (s.bias != nullptr ? sum + Vec::Load(s.bias + c) : sum).Store(y + c);
      }
    }
    if (const int64_t rest = s.columns - c; rest > 0) {
      const Vec sum = Vec::LoadPartial(tile + c, rest);
      if (s.accumulate) {
        Fma(scale, sum, Vec::LoadPartial(y + c, rest)).StorePartial(y + c, rest);
      } else {
        (s.bias != nullptr ? sum + Vec::LoadPartial(s.bias + c, rest) : sum)
            .StorePartial(y + c, rest);
      }
    }
  }
}

// One vector's worth of k for dot products of rows in memory.
template <typename T>
struct WideDot {
  using Element = T;
  static constexpr int64_t kStep = Vec::kLanes;
  using Operand = Vec;
  static Vec Load(const T* p) { return Vec::Load(p); }
  static Vec LoadPartial(const T* p, int64_t n) { return Vec::LoadPartial(p, n); }
  static Vec MultiplyAdd(Vec a, Vec b, Vec c) { return Fma(a, b, c); }
};

// M rows of x by N rows of w: each sum runs over k lane by lane, then over the lanes.
template <typename Op, int M, int N>
void DotBlock(const typename Op::Element* x, int64_t x_stride, const typename Op::Element* w,
              int64_t w_stride, int64_t k, float* out, int64_t out_stride) {
  Vec acc[M][N];
  for (int i = 0; i < M; ++i) {
    for (int j = 0; j < N; ++j) {
      acc[i][j] = Vec::Zero();
    }
  }
  const auto step = [&](auto load) __attribute__((always_inline)) {
    typename Op::Operand a[M];
#pragma GCC unroll 8
    for (int i = 0; i < M; ++i) {
      a[i] = load(x + i * x_stride);
    }
#pragma GCC unroll 8
    for (int j = 0; j < N; ++j) {
      const typename Op::Operand b = load(w + j * w_stride);
#pragma GCC unroll 8
      for (int i = 0; i < M; ++i) {
        acc[i][j] = Op::MultiplyAdd(a[i], b, acc[i][j]);
      }
    }
  };
  int64_t at = 0;
  for (; at + Op::kStep <= k; at += Op::kStep) {
    step([at](const auto* p) { return Op::Load(p + at); });
  }
  if (at < k) {
    step([at, k](const auto* p) { return Op::LoadPartial(p + at, k - at); });
  }
  for (int i = 0; i < M; ++i) {
    for (int j = 0; j < N; ++j) {
      out[i * out_stride + j] = acc[i][j].Sum();
    }
  }
}

template <typename Op, int M>
void DotRows(const typename Op::Element* x, int64_t x_stride, const typename Op::Element* w,
             int64_t w_stride, int64_t columns, int64_t k, float* out, int64_t out_stride) {
  constexpr int N = Vec::kLanes == 16 ? (M == 1 ? 8 : 4) : 2;
  int64_t c = 0;
  for (; c + N <= columns; c += N) {
    DotBlock<Op, M, N>(x, x_stride, w + c * w_stride, w_stride, k, out + c, out_stride);
  }
  for (; c < columns; ++c) {
    DotBlock<Op, M, 1>(x, x_stride, w + c * w_stride, w_stride, k, out + c, out_stride);
  }
}

template <typename Op>
void DotProducts(const typename Op::Element* x, int64_t x_stride, int64_t rows,
                 const typename Op::Element* w, int64_t w_stride, int64_t columns, int64_t k,
                 float* out, int64_t out_stride) {
  constexpr int M = Vec::kLanes == 16 ? 4 : 2;
  int64_t r = 0;
  for (; r + M <= rows; r += M) {
    DotRows<Op, M>(x + r * x_stride, x_stride, w, w_stride, columns, k, out + r * out_stride,
                   out_stride);
  }
  for (; r < rows; ++r) {
    DotRows<Op, 1>(x + r * x_stride, x_stride, w, w_stride, columns, k, out + r * out_stride,
                   out_stride);
  }
}

void WidenRow(const uint16_t* x, int64_t n, float* y) {
  int64_t i = 0;
  for (; i + Vec::kLanes <= n; i += Vec::kLanes) {
    Vec::Load(x + i).Store(y + i);
  }
  if (i < n) {
    Vec::LoadPartial(x + i, n - i).StorePartial(y + i, n - i);
  }
}

inline float ToFloat(float x) { return x; }
inline float ToFloat(uint16_t x) { return std::bit_cast<float>(static_cast<uint32_t>(x) << 16); }

// Written for the compiler's vectorizer: the maximum as one of integers, rounding by the addition
// of a number whose last bit is worth one.
template <typename T>
float QuantizeRow(const T* x, int64_t n, int8_t* q) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23
  constexpr uint32_t kNoSign = 0x7fffffff;
  uint32_t largest = 0;
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t magnitude = std::bit_cast<uint32_t>(ToFloat(x[i])) & kNoSign;
    largest = magnitude > largest ? magnitude : largest;
  }
  const float scale = std::bit_cast<float>(largest) / 127.0f;
  if (scale <= 1e-35f) {  // its inverse might not be finite
    for (int64_t i = 0; i < n; ++i) {
      q[i] = 0;
    }
    return 0.0f;
  }
  const float inverse = 1.0f / scale;
  for (int64_t i = 0; i < n; ++i) {
    const int32_t rounded = std::bit_cast<int32_t>(ToFloat(x[i]) * inverse + kRound);
    q[i] = static_cast<int8_t>(rounded - std::bit_cast<int32_t>(kRound));
  }
  return scale;
}

// Sums of one row and panel, four consecutive k of a column at a time.
inline void SumInt8Panel(const int8_t* x, int64_t k, const int8_t* panel,
                         int32_t (&sums)[kPanelColumns]) {
  for (int64_t i = 0; i < k; i += 4, panel += 4 * kPanelColumns) {
    for (int64_t c = 0; c < kPanelColumns; ++c) {
      int32_t sum = 0;
      for (int64_t j = 0; j < 4; ++j) {
        sum += static_cast<int32_t>(x[i + j]) * panel[4 * c + j];
      }
      sums[c] += sum;
    }
  }
}

// tile = sums * scales, of one row and panel.
inline void ScaleInt8Sums(const int32_t* sums, const float* w_scales, float x_scale, float* tile) {
  for (int64_t c = 0; c < kPanelColumns; ++c) {
    tile[c] = static_cast<float>(sums[c]) * w_scales[c] * x_scale;
  }
}

void Int8GemmTile(const Int8Tile& t) {
  for (int64_t r = 0; r < t.rows; ++r) {
    for (int64_t p = 0; p < t.num_panels; ++p) {
      int32_t sums[kPanelColumns] = {};
      SumInt8Panel(t.x + r * t.k, t.k, t.panels + p * t.panel_stride, sums);
      ScaleInt8Sums(sums, t.w_scales + p * kPanelColumns, t.x_scales[r],
                    t.tile + r * t.tile_stride + p * kPanelColumns);
    }
  }
}

// What this file's instruction set does without bf16 arithmetic.
constexpr GemmKernels MakeGemmKernels() {
  GemmKernels kernels;
  kernels.tile_f32 = GemmTile<PanelsF32>;
  kernels.tile_f32_bf16 = GemmTile<PanelsBf16Wide>;
  kernels.expand_f32 = ExpandTile<PanelsF32>;
  kernels.expand_bf16 = ExpandTile<PanelsBf16Wide>;
  kernels.store_f32 = StoreTile<float>;
  kernels.store_bf16 = StoreTile<uint16_t>;
  kernels.dot_f32 = DotProducts<WideDot<float>>;
  kernels.dot_bf16 = DotProducts<WideDot<uint16_t>>;
  kernels.widen = WidenRow;
  kernels.tile_int8 = Int8GemmTile;
  kernels.quantize_f32 = QuantizeRow<float>;
  kernels.quantize_bf16 = QuantizeRow<uint16_t>;
  return kernels;
}

}  // namespace
}  // namespace tenon

#endif  // TENON_ADAPTERS_KERNELS_GEMM_KERNELS_INL_H_
