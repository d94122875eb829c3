// Products of few columns, whose weights lie in pairs of k: what adapters shrink with. Include
// after gemm_kernels_inl.h, in files that are compiled for AVX-512; internal linkage throughout.
#ifndef TENON_ADAPTERS_KERNELS_PAIRS_KERNELS_AVX512_H_
#define TENON_ADAPTERS_KERNELS_PAIRS_KERNELS_AVX512_H_

#include <immintrin.h>

#include <cstdint>

#include "adapters/kernels/gemm_kernels.h"

namespace tenon {
namespace {

// Independent sums of one row and vector of columns, each over every fourth pair of k: they hide
// the latency of each other's additions.
constexpr int kPairChains = 4;
// Rows that share the weights in registers.
constexpr int kPairRows = 4;
// How far ahead the one stream of weights is fetched: each byte is used at once.
constexpr int64_t kPairPrefetchBytes = 4096;

// Where the stream of weights is fetched: ahead of what is read of w, then what follows on w.
class PairsAhead {
 public:
  // w [pairs, columns, 2], of which the columns that begin at `first` are read.
  PairsAhead(const uint16_t* w, int64_t first, int64_t columns, int64_t pairs, const void* next)
      : stride_(columns * 4),
        at_(reinterpret_cast<const char*>(w + first * 2) + kPairPrefetchBytes),
        end_(reinterpret_cast<const char*>(w) + pairs * stride_),
        next_(static_cast<const char*>(next != nullptr ? next : w)) {}

  __attribute__((always_inline)) void FetchLine() {
    __builtin_prefetch(at_ < end_ ? at_ : next_ + (at_ - end_));
    at_ += stride_;
  }

 private:
  int64_t stride_;
  const char *at_, *end_;
  const char* next_;
};

// k of a row that are laid out for the multiplication at once; a multiple of 2 * kPairChains.
constexpr int64_t kPairChunk = 512;

// Some k of M rows, and how a pair of them is multiplied: both products in fp32, exact.
template <int M>
struct PairsWidened {
  float rows[M][kPairChunk];

  // n of each row; a zero behind an odd n.
  PairsWidened(const uint16_t* x, int64_t x_stride, int64_t n) {
    for (int i = 0; i < M; ++i) {
      WidenRow(x + i * x_stride, n, rows[i]);
      if (n % 2 != 0) {
        rows[i][n] = 0.0f;
      }
    }
  }
  struct Weights {
    Vec first, second;
    explicit Weights(__m512i pairs) { Vec::SplitPairs(pairs, first, second); }
  };
  Vec Add(int row, int64_t pair, const Weights& w, Vec sum) const {
    const float* const x = rows[row] + pair * 2;
    return Fma(Vec::Set(x[1]), w.second, Fma(Vec::Set(x[0]), w.first, sum));
  }
};

// M rows by one vector of columns of w [ceil(k / 2), columns, 2], `w` pointing at the first of
// them.
template <template <int> typename Op, int M>
void PairsBlock(const uint16_t* x, int64_t x_stride, const uint16_t* w, int64_t columns, int64_t k,
                __mmask16 lanes, float* out, PairsAhead ahead) {
  Vec acc[M][kPairChains];
  for (int i = 0; i < M; ++i) {
    for (int c = 0; c < kPairChains; ++c) {
      acc[i][c] = Vec::Zero();
    }
  }
  for (int64_t begin = 0; begin < k; begin += kPairChunk) {
    const int64_t n = k - begin < kPairChunk ? k - begin : kPairChunk;
    const Op<M> op(x + begin, x_stride, n);
    const uint16_t* at = w + begin * columns;
    const auto add = [&](int64_t pair, int chain) __attribute__((always_inline)) {
      ahead.FetchLine();
      const typename Op<M>::Weights weights(_mm512_maskz_loadu_epi32(lanes, at));
#pragma GCC unroll 8
      for (int i = 0; i < M; ++i) {
        acc[i][chain] = op.Add(i, pair, weights, acc[i][chain]);
      }
      at += columns * 2;
    };
    const int64_t pairs = (n + 1) / 2;
    int64_t pair = 0;
    for (; pair + kPairChains <= pairs; pair += kPairChains) {
#pragma GCC unroll 8
      for (int c = 0; c < kPairChains; ++c) {
        add(pair + c, c);
      }
    }
    for (; pair < pairs; ++pair) {
      add(pair, 0);
    }
  }
  for (int i = 0; i < M; ++i) {
    const Vec sum = (acc[i][0] + acc[i][1]) + (acc[i][2] + acc[i][3]);
    _mm512_mask_storeu_ps(out + i * columns, lanes, sum.v);
  }
}

template <template <int> typename Op, int M>
void PairsRows(const uint16_t* x, int64_t x_stride, int64_t rows, const uint16_t* w,
               int64_t columns, int64_t k, __mmask16 lanes, float* out, const PairsAhead& ahead) {
  int64_t row = 0;
  for (; row + M <= rows; row += M) {
    PairsBlock<Op, M>(x + row * x_stride, x_stride, w, columns, k, lanes, out + row * columns,
                      ahead);
  }
  if constexpr (M > 1) {
    if (row < rows) {
      PairsRows<Op, M - 1>(x + row * x_stride, x_stride, rows - row, w, columns, k, lanes,
                           out + row * columns, ahead);
    }
  }
}

/// GemmKernels::pairs_bf16.
template <template <int> typename Op>
void Pairs(const uint16_t* x, int64_t x_stride, int64_t rows, const uint16_t* w, int64_t columns,
           int64_t k, float* out, const void* next) {
  for (int64_t c = 0; c < columns; c += Vec::kLanes) {
    const int64_t count = columns - c < Vec::kLanes ? columns - c : Vec::kLanes;
    const auto lanes = static_cast<__mmask16>((uint32_t{1} << count) - 1);
    const PairsAhead ahead(w, c, columns, (k + 1) / 2, next);
    PairsRows<Op, kPairRows>(x, x_stride, rows, w + c * 2, columns, k, lanes, out + c, ahead);
  }
}

constexpr GemmKernels WithWidenedPairs(GemmKernels kernels) {
  kernels.pairs_bf16 = Pairs<PairsWidened>;
  return kernels;
}

}  // namespace
}  // namespace tenon

#endif  // TENON_ADAPTERS_KERNELS_PAIRS_KERNELS_AVX512_H_
