// AMX's tiles: their shapes, and what is read in them. Include after gemm_kernels_inl.h, in files
// that are compiled for AMX; internal linkage throughout.
#ifndef TENON_ADAPTERS_KERNELS_TILES_AMX_H_
#define TENON_ADAPTERS_KERNELS_TILES_AMX_H_

#include <immintrin.h>

#include <algorithm>
#include <cstdint>

#include "adapters/kernels/gemm_kernels.h"

namespace tenon {
namespace {

// A tile register holds 16 rows of 64 bytes: 16 rows of x by 32 k, or 16 pairs of k by 16 columns.
// A product of two is 16 x 16 fp32 sums; of each, first all even and all odd k of the two tiles are
// summed, then added to what was there (tdpbf16ps; it flushes subnormals). The order depends on k
// alone, as for the other kernels.
constexpr int64_t kTileK = 32;
constexpr int64_t kTileHeight = 16;
constexpr int64_t kTileRowBytes = 64;
constexpr int64_t kPanelRow = kPanelColumns * 2;  // elements of one pair of k
constexpr int64_t kPanelRowBytes = kPanelRow * 2;
constexpr int64_t kStepElements = kTileK / 2 * kPanelRow;

// What tile instructions read must be in memory: the compiler's intrinsics do not tell it that they
// read more than an address.
inline void Settle(const void* memory) { __asm__ volatile("" : : "r"(memory) : "memory"); }

// Tile registers: 0 to 3 are sums, 4 and 5 rows of x, 6 and 7 columns of a panel.
struct alignas(64) TileShapes {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};

  void Set(int tile, int64_t height, int64_t bytes) {
    rows[tile] = static_cast<uint8_t>(height);
    row_bytes[tile] = static_cast<uint16_t>(bytes);
  }
  void Load() const {
    Settle(this);
    _tile_loadconfig(this);
  }
};

// The rows' last k, less than a tile, padded with zeros; and those of a panel.
struct Tail {
  alignas(64) uint16_t x[kAmxTileRows * kTileK];
  alignas(64) uint16_t panel[kStepElements];
};

void Prefetch(const uint16_t* panel) {
#pragma GCC unroll 32
  for (int64_t i = 0; i < kStepElements * 2; i += 64) {
    __builtin_prefetch(reinterpret_cast<const char*>(panel) + kPrefetchBytes + i);
  }
}

void CopyPanelRest(const uint16_t* panel, int64_t rest_k, uint16_t* padded) {
  const int64_t elements = (rest_k + 1) / 2 * kPanelRow;
  std::copy_n(panel, elements, padded);
  std::fill(padded + elements, padded + kStepElements, uint16_t{0});
  Settle(padded);
}

void Configure(int64_t rows) {
  TileShapes shapes;
  const int64_t upper = std::min(rows, kTileHeight), lower = rows - upper;
  shapes.Set(4, upper, kTileRowBytes);
  shapes.Set(6, kTileHeight, kTileRowBytes);
  shapes.Set(7, kTileHeight, kTileRowBytes);
  shapes.Set(0, upper, kTileRowBytes);
  shapes.Set(1, upper, kTileRowBytes);
  // The second pair of sums is below the first, or beside it.
  shapes.Set(2, lower > 0 ? lower : upper, kTileRowBytes);
  shapes.Set(3, lower > 0 ? lower : upper, kTileRowBytes);
  shapes.Set(5, lower > 0 ? lower : kTileHeight, kTileRowBytes);
  shapes.Load();
}

}  // namespace
}  // namespace tenon

#endif  // TENON_ADAPTERS_KERNELS_TILES_AMX_H_
