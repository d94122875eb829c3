#include <cstring>

#include "adapters/kernels/vec_avx512.h"
// The kernels below are made of the vectors above.
#include "adapters/kernels/gemm_kernels_inl.h"
#include "adapters/kernels/int8_kernels_vnni.h"
#include "adapters/kernels/pairs_kernels_avx512.h"

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

// PairsWidened's counterpart: both products of a pair in one instruction.
template <int M>
struct PairsByDot {
  uint16_t rows[M][kPairChunk];

  PairsByDot(const uint16_t* x, int64_t x_stride, int64_t n) {
    for (int i = 0; i < M; ++i) {
      std::memcpy(rows[i], x + i * x_stride, static_cast<size_t>(n) * sizeof(uint16_t));
      if (n % 2 != 0) {
        rows[i][n] = 0;
      }
    }
  }
  struct Weights {
    __m512i both;
    explicit Weights(__m512i pairs) : both(pairs) {}
  };
  Vec Add(int row, int64_t pair, const Weights& w, Vec sum) const {
    int32_t two;
    std::memcpy(&two, rows[row] + pair * 2, sizeof(two));
    return DotPairs(w.both, _mm512_set1_epi32(two), sum);
  }
};

constexpr GemmKernels MakeBf16Kernels() {
  GemmKernels kernels = WithInt8Vnni(MakeGemmKernels());
  kernels.tile_bf16 = GemmTile<PanelsBf16>;
  kernels.dot_bf16 = DotProducts<Bf16Dot>;
  kernels.pairs_bf16 = Pairs<PairsByDot>;
  return kernels;
}

}  // namespace

constinit const GemmKernels kGemmAvx512Bf16 = MakeBf16Kernels();

}  // namespace tenon
