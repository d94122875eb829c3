// The int8 product of CPUs without VNNI: widened to 16 bits, exact. Include in files that are
// compiled for AVX2 or more; internal linkage throughout.
#ifndef TENON_ADAPTERS_KERNELS_INT8_KERNELS_AVX2_H_
#define TENON_ADAPTERS_KERNELS_INT8_KERNELS_AVX2_H_

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "adapters/kernels/gemm_kernels.h"

namespace tenon {
namespace {

// Half of a panel: four vectors of four columns, each with two sums, of even and odd pairs of k.
constexpr int64_t kHalfColumns = kPanelColumns / 2;

// M rows by half a panel.
template <int M>
void Int8BlockAvx2(const Int8Tile& t, int64_t row, int64_t panel, int64_t half) {
  __m256i acc[M][4];
  for (int i = 0; i < M; ++i) {
    for (int j = 0; j < 4; ++j) {
      acc[i][j] = _mm256_setzero_si256();
    }
  }
  const int8_t* w = t.panels + panel * t.panel_stride + half * kHalfColumns * 4;
  const int8_t* x = t.x + row * t.k;
  for (int64_t k = 0; k < t.k; k += 4, w += kPanelColumns * 4) {
    __m256i a[M];
    for (int i = 0; i < M; ++i) {
      int32_t four;
      std::memcpy(&four, x + i * t.k + k, sizeof(four));
      a[i] = _mm256_broadcastq_epi64(_mm_cvtepi8_epi16(_mm_cvtsi32_si128(four)));
    }
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const __m256i b =
          _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(w + 16 * j)));
#pragma GCC unroll 2
      for (int i = 0; i < M; ++i) {
        acc[i][j] = _mm256_add_epi32(acc[i][j], _mm256_madd_epi16(a[i], b));
      }
    }
  }
  const int64_t column = panel * kPanelColumns + half * kHalfColumns;
  for (int i = 0; i < M; ++i) {
    const __m256 x_scale = _mm256_set1_ps(t.x_scales[row + i]);
    for (int j = 0; j < 4; j += 2) {
      const __m256i sums = _mm256_permute4x64_epi64(_mm256_hadd_epi32(acc[i][j], acc[i][j + 1]),
                                                    _MM_SHUFFLE(3, 1, 2, 0));
      const __m256 scaled =
          _mm256_mul_ps(_mm256_cvtepi32_ps(sums), _mm256_loadu_ps(t.w_scales + column + j * 4));
      _mm256_storeu_ps(t.tile + (row + i) * t.tile_stride + column + j * 4,
                       _mm256_mul_ps(scaled, x_scale));
    }
  }
}

void Int8TileAvx2(const Int8Tile& t) {
  for (int64_t panel = 0; panel < t.num_panels; ++panel) {
    for (int64_t half = 0; half < 2; ++half) {
      int64_t row = 0;
      for (; row + 2 <= t.rows; row += 2) {
        Int8BlockAvx2<2>(t, row, panel, half);
      }
      if (row < t.rows) {
        Int8BlockAvx2<1>(t, row, panel, half);
      }
    }
  }
}

constexpr GemmKernels WithInt8Avx2(GemmKernels kernels) {
  kernels.tile_int8 = Int8TileAvx2;
  return kernels;
}

}  // namespace
}  // namespace tenon

#endif  // TENON_ADAPTERS_KERNELS_INT8_KERNELS_AVX2_H_
