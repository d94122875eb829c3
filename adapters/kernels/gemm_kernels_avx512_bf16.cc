#include <cstring>

#include "adapters/kernels/vec_avx512.h"
// The kernels below are made of the vectors above.
#include "adapters/kernels/gemm_kernels_inl.h"

namespace tenon {
namespace {

// Two products of bf16 a lane, added in fp32 (vdpbf16ps: odd element first, flushes subnormals).
Vec DotPairs(__m512i a, __m512i b, Vec c) {
  return {_mm512_dpbf16_ps(c.v, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b))};
}

// bf16 panels and rows, two k a step.
struct PanelsBf16 {
  using Weight = uint16_t;
  using Input = uint16_t;
  static constexpr int64_t kStep = 2;
  template <int M, int N>
  static inline __attribute__((always_inline)) void Step(const uint16_t* x, int64_t x_stride,
                                                         const uint16_t* const* strips,
                                                         int64_t valid, Vec (&acc)[M][N]) {
    __m512i w[N];
#pragma GCC unroll 16
    for (int j = 0; j < N; ++j) {
      w[j] = _mm512_loadu_si512(strips[j / 2] + j % 2 * Vec::kLanes * 2);
    }
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i) {
      int32_t pair = x[i * x_stride];
      if (valid == kStep) {
        std::memcpy(&pair, x + i * x_stride, sizeof(pair));
      }
      const __m512i a = _mm512_set1_epi32(pair);
#pragma GCC unroll 16
      for (int j = 0; j < N; ++j) {
        acc[i][j] = DotPairs(a, w[j], acc[i][j]);
      }
    }
  }
};

// 32 elements of k for dot products of rows in memory.
struct Bf16Dot {
  using Element = uint16_t;
  static constexpr int64_t kStep = 2 * Vec::kLanes;
  using Operand = __m512i;
  static __m512i Load(const uint16_t* p) { return _mm512_loadu_si512(p); }
  static __m512i LoadPartial(const uint16_t* p, int64_t n) {
    return _mm512_maskz_loadu_epi16(static_cast<__mmask32>((uint64_t{1} << n) - 1), p);
  }
  static Vec MultiplyAdd(__m512i a, __m512i b, Vec c) { return DotPairs(a, b, c); }
};

// M rows by one panel of int8. The instruction multiplies unsigned by signed bytes: x goes in with
// 128 added, for which the sums begin at -128 times those of the weights.
template <int M>
void Int8Block(const Int8Tile& t, int64_t row, int64_t panel) {
  constexpr int32_t kSignBits = static_cast<int32_t>(0x80808080u);
  const int64_t column = panel * kPanelColumns;
  __m512i acc[M][2];
  for (int j = 0; j < 2; ++j) {
    const __m512i sums = _mm512_loadu_si512(t.w_sums + column + j * Vec::kLanes);
    for (int i = 0; i < M; ++i) {
      acc[i][j] = _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_slli_epi32(sums, 7));
    }
  }
  const int8_t* w = t.panels + panel * t.panel_stride;
  const int8_t* x = t.x + row * t.k;
  for (int64_t k = 0; k < t.k; k += 4, w += kPanelColumns * 4) {
    const __m512i first = _mm512_loadu_si512(w), second = _mm512_loadu_si512(w + 64);
    __builtin_prefetch(w + kPrefetchBytes);
    __builtin_prefetch(w + kPrefetchBytes + 64);
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i) {
      int32_t four;
      std::memcpy(&four, x + i * t.k + k, sizeof(four));
      const __m512i a = _mm512_set1_epi32(four ^ kSignBits);
      acc[i][0] = _mm512_dpbusd_epi32(acc[i][0], a, first);
      acc[i][1] = _mm512_dpbusd_epi32(acc[i][1], a, second);
    }
  }
  for (int i = 0; i < M; ++i) {
    const Vec x_scale = Vec::Set(t.x_scales[row + i]);
    for (int j = 0; j < 2; ++j) {
      const Vec scaled = Vec{_mm512_cvtepi32_ps(acc[i][j])} *
                         Vec::Load(t.w_scales + column + j * Vec::kLanes);
      (scaled * x_scale).Store(t.tile + (row + i) * t.tile_stride + column + j * Vec::kLanes);
    }
  }
}

template <int M>
void Int8Rows(const Int8Tile& t, int64_t row, int64_t rows) {
  if (rows == M) {
    for (int64_t panel = 0; panel < t.num_panels; ++panel) {
      Int8Block<M>(t, row, panel);
    }
  } else if constexpr (M > 1) {
    Int8Rows<M - 1>(t, row, rows);
  }
}

void Int8TileVnni(const Int8Tile& t) {
  for (int64_t row = 0; row < t.rows; row += kBlockRows) {
    Int8Rows<kBlockRows>(t, row, t.rows - row < kBlockRows ? t.rows - row : kBlockRows);
  }
}

constexpr GemmKernels MakeBf16Kernels() {
  GemmKernels kernels = MakeGemmKernels();
  kernels.tile_bf16 = GemmTile<PanelsBf16>;
  kernels.dot_bf16 = DotProducts<Bf16Dot>;
  kernels.tile_int8 = Int8TileVnni;
  return kernels;
}

}  // namespace

constinit const GemmKernels kGemmAvx512Bf16 = MakeBf16Kernels();

}  // namespace tenon
