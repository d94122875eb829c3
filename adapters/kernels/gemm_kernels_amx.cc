#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "adapters/kernels/vec_avx512.h"
// The kernels below stand beside those that are made of the vectors above.
#include "adapters/kernels/gemm_kernels_inl.h"
// And these are made of both.
#include "adapters/kernels/expand_kernels_amx.h"
#include "adapters/kernels/int8_kernels_amx.h"
#include "adapters/kernels/pairs_kernels_amx.h"
#include "adapters/kernels/tiles_amx.h"

namespace tenon {
namespace {

struct Product {
  const uint16_t* x;
  int64_t x_stride;  // elements
  int64_t rows;
  const uint16_t* panels;
  int64_t panel_stride;
  int64_t steps;   // whole tiles of k
  int64_t rest_k;  // behind them
  float* tile;
  int64_t tile_stride;
  int64_t lines_per_step;  // that are fetched for others
};

// 17 to 32 rows by one panel.
void TallBlock(const Product& p, const uint16_t* panel, float* out, Tail& tail, FetchList& fetch) {
  const int64_t x_bytes = p.x_stride * 2, out_bytes = p.tile_stride * 4;
  const uint16_t* const lower = p.x + kTileHeight * p.x_stride;
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  const auto multiply = [](const uint16_t* x0, const uint16_t* x1, int64_t stride,
                           const uint16_t* w) __attribute__((always_inline)) {
    _tile_loadd(6, w, kPanelRowBytes);
    _tile_loadd(4, x0, stride);
    _tile_loadd(5, x1, stride);
    _tile_loadd(7, w + kPanelRow / 2, kPanelRowBytes);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(3, 5, 7);
  };
  for (int64_t s = 0; s < p.steps; ++s, panel += kStepElements) {
    Prefetch(panel);
    fetch.FetchSome(p.lines_per_step);
    multiply(p.x + s * kTileK, lower + s * kTileK, x_bytes, panel);
  }
  if (p.rest_k > 0) {
    CopyPanelRest(panel, p.rest_k, tail.panel);
    multiply(tail.x, tail.x + kTileHeight * kTileK, kTileK * 2, tail.panel);
  }
  _tile_stored(0, out, out_bytes);
  _tile_stored(1, out + kTileHeight, out_bytes);
  _tile_stored(2, out + kTileHeight * p.tile_stride, out_bytes);
  _tile_stored(3, out + kTileHeight * p.tile_stride + kTileHeight, out_bytes);
}

// 1 to 16 rows by two panels, or by one: more sums than one panel has hide each other's latency.
template <bool kPair>
void FlatBlock(const Product& p, const uint16_t* panel, float* out, Tail& tail, FetchList& fetch) {
  const int64_t x_bytes = p.x_stride * 2, out_bytes = p.tile_stride * 4;
  const uint16_t* second = panel + p.panel_stride;
  _tile_zero(0);
  _tile_zero(1);
  if constexpr (kPair) {
    _tile_zero(2);
    _tile_zero(3);
  }
  const auto load_x = [](const uint16_t* x, int64_t stride)
                          __attribute__((always_inline)) { _tile_loadd(4, x, stride); };
  const auto first_panel = [](const uint16_t* w) __attribute__((always_inline)) {
    _tile_loadd(6, w, kPanelRowBytes);
    _tile_loadd(7, w + kPanelRow / 2, kPanelRowBytes);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
  };
  const auto second_panel = [](const uint16_t* w) __attribute__((always_inline)) {
    _tile_loadd(5, w, kPanelRowBytes);
    _tile_loadd(6, w + kPanelRow / 2, kPanelRowBytes);
    _tile_dpbf16ps(2, 4, 5);
    _tile_dpbf16ps(3, 4, 6);
  };
  for (int64_t s = 0; s < p.steps; ++s, panel += kStepElements) {
    Prefetch(panel);
    fetch.FetchSome(p.lines_per_step);
    load_x(p.x + s * kTileK, x_bytes);
    first_panel(panel);
    if constexpr (kPair) {
      Prefetch(second);
      second_panel(second);
      second += kStepElements;
    }
  }
  if (p.rest_k > 0) {
    load_x(tail.x, kTileK * 2);
    CopyPanelRest(panel, p.rest_k, tail.panel);
    first_panel(tail.panel);
    if constexpr (kPair) {
      CopyPanelRest(second, p.rest_k, tail.panel);
      second_panel(tail.panel);
    }
  }
  _tile_stored(0, out, out_bytes);
  _tile_stored(1, out + kTileHeight, out_bytes);
  if constexpr (kPair) {
    _tile_stored(2, out + kPanelColumns, out_bytes);
    _tile_stored(3, out + kPanelColumns + kTileHeight, out_bytes);
  }
}

void AmxTile(const uint16_t* x, int64_t x_stride, int64_t rows, const uint16_t* panels,
             int64_t panel_stride, int64_t num_panels, int64_t k, float* tile, int64_t tile_stride,
             FetchList& fetch) {
  Settle(x);
  Product product = {x,          x_stride,   rows, panels,      panel_stride,
                     k / kTileK, k % kTileK, tile, tile_stride, 0};
  const int64_t blocks = rows > kTileHeight ? num_panels : (num_panels + 1) / 2;
  product.lines_per_step = fetch.num_lines() / (product.steps * blocks + 1) + 1;
  Tail tail;
  if (product.rest_k > 0) {
    std::memset(tail.x, 0, sizeof(tail.x));
    for (int64_t r = 0; r < rows; ++r) {
      std::copy_n(x + r * x_stride + product.steps * kTileK, product.rest_k, tail.x + r * kTileK);
    }
    Settle(tail.x);
  }
  Configure(rows);
  int64_t p = 0;
  if (rows > kTileHeight) {
    for (; p < num_panels; ++p) {
      TallBlock(product, panels + p * panel_stride, tile + p * kPanelColumns, tail, fetch);
    }
  } else {
    for (; p + 2 <= num_panels; p += 2) {
      FlatBlock<true>(product, panels + p * panel_stride, tile + p * kPanelColumns, tail, fetch);
    }
    if (p < num_panels) {
      FlatBlock<false>(product, panels + p * panel_stride, tile + p * kPanelColumns, tail, fetch);
    }
  }
  _tile_release();
}

constexpr GemmKernels MakeAmxKernels() {
  GemmKernels kernels = MakeGemmKernels();
  kernels.tile_rows = kAmxTileRows;
  kernels.tile_bf16 = AmxTile;
  kernels.expand_bf16 = AmxExpand;
  kernels.pairs_bf16 = AmxPairs;
  kernels.tile_int8 = Int8TileAmx;
  return kernels;
}

}  // namespace

constinit const GemmKernels kGemmAmx = MakeAmxKernels();

}  // namespace tenon
