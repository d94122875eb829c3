// The product of int8 in tiles. Include after gemm_kernels_inl.h, in files that are compiled for
// AMX; internal linkage throughout.
#ifndef TENON_ADAPTERS_KERNELS_INT8_KERNELS_AMX_H_
#define TENON_ADAPTERS_KERNELS_INT8_KERNELS_AMX_H_

#include <immintrin.h>

#include <cstdint>

#include "adapters/kernels/gemm_kernels.h"
#include "adapters/kernels/tiles_amx.h"

namespace tenon {
namespace {

// A tile of int8 holds 16 rows by 64 k, or 16 groups of four k by 16 columns.
constexpr int64_t kInt8Step = kInt8Group * kPanelColumns;

void ScaleSums(const int32_t* sums, const Int8Tile& t, int64_t column) {
  const Vec w_first = Vec::Load(t.w_scales + column);
  const Vec w_second = Vec::Load(t.w_scales + column + Vec::kLanes);
  for (int64_t r = 0; r < t.rows; ++r) {
    const Vec x_scale = Vec::Set(t.x_scales[r]);
    const int32_t* const sum = sums + r * kPanelColumns;
    float* const tile = t.tile + r * t.tile_stride + column;
    (Vec{_mm512_cvtepi32_ps(_mm512_loadu_si512(sum))} * w_first * x_scale).Store(tile);
    (Vec{_mm512_cvtepi32_ps(_mm512_loadu_si512(sum + Vec::kLanes))} * w_second * x_scale)
        .Store(tile + Vec::kLanes);
  }
}

// All rows by one panel, the second tile of rows only if there are more than 16.
template <bool kTall>
void Int8PanelAmx(const Int8Tile& t, int64_t panel, int32_t* sums) {
  constexpr int64_t kSumBytes = kPanelColumns * 4;
  const int8_t* w = t.panels + panel * t.panel_stride;
  const int8_t* const lower = t.x + kTileHeight * t.k;
  _tile_zero(0);
  _tile_zero(1);
  if constexpr (kTall) {
    _tile_zero(2);
    _tile_zero(3);
  }
  for (int64_t k = 0; k < t.k; k += kInt8Group, w += kInt8Step) {
    Prefetch(reinterpret_cast<const uint16_t*>(w));
    _tile_loadd(6, w, kPanelRowBytes);
    _tile_loadd(4, t.x + k, t.k);
    _tile_dpbssd(0, 4, 6);
    _tile_loadd(7, w + kPanelColumns * 2, kPanelRowBytes);
    _tile_dpbssd(1, 4, 7);
    if constexpr (kTall) {
      _tile_loadd(5, lower + k, t.k);
      _tile_dpbssd(2, 5, 6);
      _tile_dpbssd(3, 5, 7);
    }
  }
  _tile_stored(0, sums, kSumBytes);
  _tile_stored(1, sums + kTileHeight, kSumBytes);
  if constexpr (kTall) {
    _tile_stored(2, sums + kTileHeight * kPanelColumns, kSumBytes);
    _tile_stored(3, sums + kTileHeight * kPanelColumns + kTileHeight, kSumBytes);
  }
}

void Int8TileAmx(const Int8Tile& t) {
  alignas(64) int32_t sums[kAmxTileRows * kPanelColumns];
  Settle(t.x);
  Configure(t.rows);
  for (int64_t panel = 0; panel < t.num_panels; ++panel) {
    (t.rows > kTileHeight ? Int8PanelAmx<true> : Int8PanelAmx<false>)(t, panel, sums);
    ScaleSums(sums, t, panel * kPanelColumns);
  }
  _tile_release();
}

}  // namespace
}  // namespace tenon

#endif  // TENON_ADAPTERS_KERNELS_INT8_KERNELS_AMX_H_
