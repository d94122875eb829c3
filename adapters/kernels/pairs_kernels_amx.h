// Products of few columns in tiles, whose weights lie in pairs of k: what adapters shrink with.
// Include after gemm_kernels_inl.h, in files that are compiled for AMX; internal linkage
// throughout.
#ifndef TENON_ADAPTERS_KERNELS_PAIRS_KERNELS_AMX_H_
#define TENON_ADAPTERS_KERNELS_PAIRS_KERNELS_AMX_H_

#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "adapters/kernels/gemm_kernels.h"
#include "adapters/kernels/pairs_kernels_avx512.h"
#include "adapters/kernels/tiles_amx.h"

namespace tenon {
namespace {

// Up to 16 rows of x by up to 16 columns of w, four sums over every fourth tile of k.
void PairsBlock(const uint16_t* x, int64_t x_stride, int64_t rows, const uint16_t* w,
                int64_t w_columns, int64_t columns, int64_t k, const Tail& tail, PairsAhead ahead,
                float* out) {
  const int64_t x_bytes = x_stride * 2, w_bytes = w_columns * 4;
  const int64_t w_step = kTileK * w_columns;
  TileShapes shapes;
  for (int i = 0; i < 4; ++i) {
    shapes.Set(i, rows, columns * 4);
  }
  shapes.Set(4, rows, kTileRowBytes);
  shapes.Set(5, rows, kTileRowBytes);
  shapes.Set(6, kTileHeight, columns * 4);
  shapes.Set(7, kTileHeight, columns * 4);
  shapes.Load();
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  const int64_t steps = k / kTileK;
  int64_t s = 0;
  const auto fetch = [&](int64_t tiles) __attribute__((always_inline)) {
    for (int64_t line = 0; line < tiles * kTileHeight; ++line) {
      ahead.FetchLine();
    }
  };
  for (; s + 4 <= steps; s += 4, x += 4 * kTileK, w += 4 * w_step) {
    fetch(4);
    _tile_loadd(4, x, x_bytes);
    _tile_loadd(6, w, w_bytes);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(5, x + kTileK, x_bytes);
    _tile_loadd(7, w + w_step, w_bytes);
    _tile_dpbf16ps(1, 5, 7);
    _tile_loadd(4, x + 2 * kTileK, x_bytes);
    _tile_loadd(6, w + 2 * w_step, w_bytes);
    _tile_dpbf16ps(2, 4, 6);
    _tile_loadd(5, x + 3 * kTileK, x_bytes);
    _tile_loadd(7, w + 3 * w_step, w_bytes);
    _tile_dpbf16ps(3, 5, 7);
  }
  for (; s < steps; ++s, x += kTileK, w += w_step) {
    fetch(1);
    _tile_loadd(4, x, x_bytes);
    _tile_loadd(6, w, w_bytes);
    _tile_dpbf16ps(0, 4, 6);
  }
  if (k % kTileK > 0) {
    _tile_loadd(5, tail.x, kTileK * 2);
    _tile_loadd(7, tail.panel, columns * 4);
    _tile_dpbf16ps(1, 5, 7);
  }
  alignas(64) float sums[4][kTileHeight * kTileHeight];
  _tile_stored(0, sums[0], kTileRowBytes);
  _tile_stored(1, sums[1], kTileRowBytes);
  _tile_stored(2, sums[2], kTileRowBytes);
  _tile_stored(3, sums[3], kTileRowBytes);
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t at = r * kTileHeight;
    const Vec sum = (Vec::Load(sums[0] + at) + Vec::Load(sums[1] + at)) +
                    (Vec::Load(sums[2] + at) + Vec::Load(sums[3] + at));
    sum.StorePartial(out + r * w_columns, columns);
  }
}

void AmxPairs(const uint16_t* x, int64_t x_stride, int64_t rows, const uint16_t* w, int64_t columns,
              int64_t k, float* out, const void* next) {
  Settle(x);
  const int64_t whole_k = k / kTileK * kTileK, rest_k = k - whole_k;
  Tail tail;
  for (int64_t row = 0; row < rows; row += kTileHeight) {
    const int64_t height = std::min(rows - row, kTileHeight);
    const uint16_t* const x_rows = x + row * x_stride;
    if (rest_k > 0) {
      std::memset(tail.x, 0, sizeof(tail.x));
      for (int64_t r = 0; r < height; ++r) {
        std::copy_n(x_rows + r * x_stride + whole_k, rest_k, tail.x + r * kTileK);
      }
    }
    for (int64_t c = 0; c < columns; c += kTileHeight) {
      const int64_t width = std::min(columns - c, kTileHeight);
      if (rest_k > 0) {
        std::memset(tail.panel, 0, sizeof(tail.panel));
        for (int64_t pair = 0; pair < (rest_k + 1) / 2; ++pair) {
          std::copy_n(w + ((whole_k / 2 + pair) * columns + c) * 2, width * 2,
                      tail.panel + pair * width * 2);
        }
      }
      Settle(&tail);
      PairsBlock(x_rows, x_stride, height, w + c * 2, columns, width, k, tail,
                 PairsAhead(w, c, columns, (k + 1) / 2, next), out + row * columns + c);
    }
  }
  _tile_release();
}

}  // namespace
}  // namespace tenon

#endif  // TENON_ADAPTERS_KERNELS_PAIRS_KERNELS_AMX_H_
