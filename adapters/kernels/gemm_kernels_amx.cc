#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "adapters/kernels/vec_avx512.h"
// The kernels below stand beside those that are made of the vectors above.
#include "adapters/kernels/gemm_kernels_inl.h"
#include "adapters/kernels/pairs_kernels_avx512.h"

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

// The same for int8: a tile holds 16 rows by 64 k, or 16 groups of four k by 16 columns.
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
