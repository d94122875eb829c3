// What an update adds to a product's sums, in tiles, or for a row or two in vectors with the tiles'
// bits. Include after gemm_kernels_inl.h, in files that are compiled for AMX; internal linkage
// throughout.
#ifndef TENON_ADAPTERS_KERNELS_EXPAND_KERNELS_AMX_H_
#define TENON_ADAPTERS_KERNELS_EXPAND_KERNELS_AMX_H_

#include <immintrin.h>

#include <algorithm>
#include <cstdint>

#include "adapters/kernels/gemm_kernels.h"
#include "adapters/kernels/tiles_amx.h"

namespace tenon {
namespace {

// Ranks that AmxExpand takes at once: what it makes of them stays in the first-level cache.
constexpr int64_t kExpandRanks = 256;
constexpr int64_t kExpandChunks = kExpandRanks / kTileK;

// Scaled fp32 numbers as sums of two bf16 each, which leaves an error of 2^-17.
struct SplitVector {
  __m256i high, low;

  SplitVector(const float* from, int64_t count, __m512 factor) {
    const auto mask = static_cast<__mmask16>((1u << count) - 1);
    const __m512 value = _mm512_mul_ps(factor, _mm512_maskz_loadu_ps(mask, from));
    high = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(value));
    low = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(_mm512_sub_ps(value, Widen(high))));
  }
  static __m512 Widen(__m256i bf16) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bf16), 16));
  }
};

// Rows of them as tiles: chunks of 32 ranks, in each a tile of the high parts and one of the low.
struct SplitRows {
  alignas(64) uint16_t parts[kExpandChunks][2][kTileHeight * kTileK];

  void Split(const float* shrunk, int64_t stride, int64_t rows, int64_t ranks, float scale) {
    const __m512 factor = _mm512_set1_ps(scale);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t j = 0; j < (ranks + kTileK - 1) / kTileK * kTileK; j += Vec::kLanes) {
        const SplitVector split(shrunk + r * stride + j,
                                std::clamp<int64_t>(ranks - j, 0, Vec::kLanes), factor);
        auto& chunk = parts[j / kTileK];
        const int64_t at = r * kTileK + j % kTileK;
        _mm256_store_si256(reinterpret_cast<__m256i*>(chunk[0] + at), split.high);
        _mm256_store_si256(reinterpret_cast<__m256i*>(chunk[1] + at), split.low);
      }
    }
    Settle(this);
  }
};

// tile += split rows @ panel, for the chunks of one slice of ranks; tiles are `depth` ranks deep.
void ExpandPanel(const SplitRows& split, const uint16_t* panel, int64_t ranks, int64_t depth,
                 float* tile, int64_t tile_bytes, Tail& tail) {
  Settle(tile);
  _tile_loadd(0, tile, tile_bytes);
  _tile_loadd(1, tile + kTileHeight, tile_bytes);
  for (int64_t j = 0; j < ranks; j += kTileK, panel += kStepElements) {
    const uint16_t* w = panel;
    if (ranks - j < depth) {
      CopyPanelRest(panel, ranks - j, tail.panel);
      w = tail.panel;
    }
    _tile_loadd(4, split.parts[j / kTileK][0], kTileK * 2);
    _tile_loadd(6, w, kPanelRowBytes);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, w + kPanelRow / 2, kPanelRowBytes);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, split.parts[j / kTileK][1], kTileK * 2);
    _tile_dpbf16ps(0, 5, 6);
    _tile_dpbf16ps(1, 5, 7);
  }
  _tile_stored(0, tile, tile_bytes);
  _tile_stored(1, tile + kTileHeight, tile_bytes);
}

// In tiles. One product less deep than a tile is all of a small rank's.
void ExpandTiles(const float* shrunk, int64_t rows, const uint16_t* panels, int64_t panel_stride,
                 int64_t num_panels, int64_t rank, float scale, float* tile, int64_t tile_stride) {
  SplitRows split;
  Tail tail;
  const int64_t pairs = std::min((rank + 1) / 2, kTileHeight);
  for (int64_t row = 0; row < rows; row += kTileHeight) {
    const int64_t height = std::min(rows - row, kTileHeight);
    TileShapes shapes;
    shapes.Set(0, height, kTileRowBytes);
    shapes.Set(1, height, kTileRowBytes);
    shapes.Set(4, height, pairs * 4);
    shapes.Set(5, height, pairs * 4);
    shapes.Set(6, pairs, kTileRowBytes);
    shapes.Set(7, pairs, kTileRowBytes);
    shapes.Load();
    for (int64_t first = 0; first < rank; first += kExpandRanks) {
      const int64_t ranks = std::min(rank - first, kExpandRanks);
      split.Split(shrunk + row * rank + first, rank, height, ranks, scale);
      for (int64_t p = 0; p < num_panels; ++p) {
        ExpandPanel(split, panels + p * panel_stride + first / 2 * kPanelRow, ranks,
                    rank < kTileK ? rank : kTileK, tile + row * tile_stride + p * kPanelColumns,
                    tile_stride * 4, tail);
      }
    }
  }
  _tile_release();
}

// While it lives, this thread's vector instructions take and make no subnormals, as tiles' do.
class FlushSubnormals {
 public:
  FlushSubnormals() : before_(_mm_getcsr()) { _mm_setcsr(before_ | kFlushToZero | kZeroInputs); }
  ~FlushSubnormals() { _mm_setcsr(before_); }
  FlushSubnormals(const FlushSubnormals&) = delete;
  FlushSubnormals& operator=(const FlushSubnormals&) = delete;

 private:
  static constexpr unsigned kFlushToZero = 1u << 15, kZeroInputs = 1u << 6;
  unsigned before_;
};

// Rows whose product is cheaper in vectors than in tiles that are mostly empty.
constexpr int kVectorExpandRows = 2;

// A chunk of up to 32 ranks of M rows: high parts, then low parts, in fp32.
template <int M>
struct SplitChunk {
  alignas(64) float parts[M][2][kTileK];

  SplitChunk(const float* shrunk, int64_t stride, int64_t ranks, __m512 factor) {
    for (int r = 0; r < M; ++r) {
      for (int64_t j = 0; j < kTileK; j += Vec::kLanes) {
        const SplitVector split(shrunk + r * stride + j,
                                std::clamp<int64_t>(ranks - j, 0, Vec::kLanes), factor);
        _mm512_store_ps(parts[r][0] + j, SplitVector::Widen(split.high));
        _mm512_store_ps(parts[r][1] + j, SplitVector::Widen(split.low));
      }
    }
  }
};

// tile += chunk @ panel with the sums of tdpbf16ps, one after the other as ExpandPanel has them:
// all even k, all odd k, both together, added to what was there. 16 columns. `padded`: the tile is
// deeper than the ranks.
template <int M>
void ExpandVector(const SplitChunk<M>& chunk, const uint16_t* panel, int64_t pairs, bool padded,
                  float* tile, int64_t tile_stride) {
  Vec even[M][2], odd[M][2];
  for (int r = 0; r < M; ++r) {
    for (int part = 0; part < 2; ++part) {
      even[r][part] = odd[r][part] = Vec::Zero();
    }
  }
  for (int64_t pair = 0; pair < pairs; ++pair, panel += kPanelRow) {
    Vec first, second;
    Vec::LoadPairs(panel, first, second);
#pragma GCC unroll 8
    for (int r = 0; r < M; ++r) {
#pragma GCC unroll 2
      for (int part = 0; part < 2; ++part) {
        const float* const x = chunk.parts[r][part] + pair * 2;
        even[r][part] = Fma(Vec::Set(x[0]), first, even[r][part]);
        odd[r][part] = Fma(Vec::Set(x[1]), second, odd[r][part]);
      }
    }
  }
  if (padded) {  // with zeros, which make +0 of what was flushed to -0
    for (int r = 0; r < M; ++r) {
      for (int part = 0; part < 2; ++part) {
        even[r][part] = even[r][part] + Vec::Zero();
        odd[r][part] = odd[r][part] + Vec::Zero();
      }
    }
  }
  for (int r = 0; r < M; ++r) {
    float* const at = tile + r * tile_stride;
    ((Vec::Load(at) + (even[r][0] + odd[r][0])) + (even[r][1] + odd[r][1])).Store(at);
  }
}

template <int M>
void ExpandRows(const float* shrunk, const uint16_t* panels, int64_t panel_stride,
                int64_t num_panels, int64_t rank, float scale, float* tile, int64_t tile_stride) {
  const __m512 factor = _mm512_set1_ps(scale);
  for (int64_t first = 0; first < rank; first += kTileK) {
    const int64_t ranks = std::min(rank - first, kTileK);
    const SplitChunk<M> chunk(shrunk + first, rank, ranks, factor);
    const int64_t pairs = (ranks + 1) / 2;
    const bool padded = first > 0 && ranks < kTileK;
    const uint16_t* panel = panels + first / 2 * kPanelRow;
    for (int64_t p = 0; p < num_panels; ++p, panel += panel_stride) {
      float* const at = tile + p * kPanelColumns;
      ExpandVector(chunk, panel, pairs, padded, at, tile_stride);
      ExpandVector(chunk, panel + kPanelRow / 2, pairs, padded, at + Vec::kLanes, tile_stride);
    }
  }
}

void AmxExpand(const float* shrunk, int64_t rows, const uint16_t* panels, int64_t panel_stride,
               int64_t num_panels, int64_t rank, float scale, float* tile, int64_t tile_stride) {
  if (rows > kVectorExpandRows) {
    ExpandTiles(shrunk, rows, panels, panel_stride, num_panels, rank, scale, tile, tile_stride);
    return;
  }
  const FlushSubnormals as_tiles_do;
  // Two rows share the weights in registers.
  const auto expand = rows == kVectorExpandRows ? ExpandRows<kVectorExpandRows> : ExpandRows<1>;
  expand(shrunk, panels, panel_stride, num_panels, rank, scale, tile, tile_stride);
}

}  // namespace
}  // namespace tenon

#endif  // TENON_ADAPTERS_KERNELS_EXPAND_KERNELS_AMX_H_
