// The int8 product of CPUs with AVX512-VNNI. Include after gemm_kernels_inl.h, in files that are
// compiled for it; internal linkage throughout.
#ifndef TENON_ADAPTERS_KERNELS_INT8_KERNELS_VNNI_H_
#define TENON_ADAPTERS_KERNELS_INT8_KERNELS_VNNI_H_

#include <immintrin.h>

#include <cstdint>

#include "adapters/kernels/gemm_kernels.h"

namespace tenon {
namespace {

// 128 times the sum of a row of int8, k a multiple of kInt8Group.
int32_t SignedExcess(const int8_t* x, int64_t k) {
  const __m512i ones = _mm512_set1_epi8(1);
  __m512i sums = _mm512_setzero_si512();
  for (int64_t i = 0; i < k; i += kInt8Group) {
    sums = _mm512_dpbusd_epi32(sums, ones, _mm512_loadu_si512(x + i));
  }
  return _mm512_reduce_add_epi32(sums) * 128;
}

// sums += w * four bytes at `four`, the latter for every lane. As an instruction in text, since GCC
// 12 keeps two copies of each sum of the intrinsic and moves them through memory.
inline __attribute__((always_inline)) void AddFour(__m512i& sums, __m512i w, const int8_t* four) {
  using Four = int32_t __attribute__((may_alias, aligned(1)));
  asm("vpdpbusd %2%{1to16%}, %1, %0"
      : "+v"(sums)
      : "v"(w), "m"(*reinterpret_cast<const Four*>(four)));
}

// M rows by one panel of int8. The instruction multiplies unsigned by signed bytes: the weights go
// in with 128 added, for which the sums begin at -128 times those of x, the `excess`. This way
// round four of x are an operand in memory, which takes no port that multiplies.
template <int M>
void Int8Block(const Int8Tile& t, const int32_t (&excess)[M], int64_t row, int64_t panel) {
  const __m512i sign = _mm512_set1_epi8(-128);
  __m512i acc[M][2];
#pragma GCC unroll 16
  for (int i = 0; i < M; ++i) {
    acc[i][0] = acc[i][1] = _mm512_set1_epi32(-excess[i]);
  }
  const int8_t* x = t.x + row * t.k;
  const int8_t* w = t.panels + panel * t.panel_stride;
  for (int64_t k = 0; k < t.k; k += 4, w += kPanelColumns * 4) {
    const __m512i first = _mm512_xor_si512(_mm512_loadu_si512(w), sign);
    const __m512i second = _mm512_xor_si512(_mm512_loadu_si512(w + 64), sign);
    FetchAhead(w);
#pragma GCC unroll 16
    for (int i = 0; i < M; ++i) {
      AddFour(acc[i][0], first, x + i * t.k + k);
      AddFour(acc[i][1], second, x + i * t.k + k);
    }
  }
  const int64_t column = panel * kPanelColumns;
#pragma GCC unroll 16
  for (int i = 0; i < M; ++i) {
    const Vec x_scale = Vec::Set(t.x_scales[row + i]);
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j) {
      const Vec scaled =
          Vec{_mm512_cvtepi32_ps(acc[i][j])} * Vec::Load(t.w_scales + column + j * Vec::kLanes);
      (scaled * x_scale).Store(t.tile + (row + i) * t.tile_stride + column + j * Vec::kLanes);
    }
  }
}

template <int M>
void Int8Rows(const Int8Tile& t, int64_t row, int64_t rows) {
  if (rows == M) {
    int32_t excess[M];
    for (int i = 0; i < M; ++i) {
      excess[i] = SignedExcess(t.x + (row + i) * t.k, t.k);
    }
    for (int64_t panel = 0; panel < t.num_panels; ++panel) {
      Int8Block<M>(t, excess, row, panel);
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

constexpr GemmKernels WithInt8Vnni(GemmKernels kernels) {
  kernels.tile_int8 = Int8TileVnni;
  return kernels;
}

}  // namespace
}  // namespace tenon

#endif  // TENON_ADAPTERS_KERNELS_INT8_KERNELS_VNNI_H_
