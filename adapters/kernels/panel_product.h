// How a product with a matrix in panels is cut into tasks, whatever the panels hold. Internal to
// this folder.
#ifndef TENON_ADAPTERS_KERNELS_PANEL_PRODUCT_H_
#define TENON_ADAPTERS_KERNELS_PANEL_PRODUCT_H_

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <span>

#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "adapters/kernels/gemm_kernels.h"
#include "adapters/kernels/packed_matrix.h"
#include "adapters/kernels/parallel.h"
#include "adapters/kernels/shared_tasks.h"

namespace tenon {

/// Where the sums of a product go: bf16 elements as uint16_t.
template <typename T>
struct ProductOutput {
  const float* bias = nullptr;  ///< [columns] or null
  T* y = nullptr;               ///< [rows, columns], rows y_stride apart
  int64_t y_stride = 0;
  int64_t rows = 0, columns = 0;
  ProductUpdates updates;
  int64_t first_row = 0;  ///< what the updates call y's first
};

/// What Pack and Quantize take: matrices of fp32 or bf16 on the CPU with the same inputs.
absl::Status CheckWeights(std::span<const at::Tensor> weights);

/// Throws c10::Error when an operand or an update does not fit a product with W [out, in].
void CheckProduct(const at::Tensor& x, const at::Tensor& y, int64_t in_features,
                  int64_t out_features, at::ScalarType dtype, std::span<const PanelUpdate> updates);

template <typename T>
ProductOutput<T> MakeOutput(const at::Tensor& bias, const at::Tensor& y,
                            const ProductUpdates& updates, int64_t first_row) {
  return {bias.defined() ? bias.const_data_ptr<float>() : nullptr,
          static_cast<T*>(y.mutable_data_ptr()),
          y.stride(0),
          y.size(0),
          y.size(1),
          updates,
          first_row};
}

namespace panel_product {

// A task's panels should stay in a core's second-level cache while rows go by.
inline constexpr int64_t kTaskWeightBytes = 256 * 1024;
inline constexpr int64_t kMaxTaskPanels = 8;
// Panels whose sums are computed before they are stored: they should stay in the first-level cache.
inline constexpr int64_t kTilePanels = 4;
// Rows of a task, when there are more rows than one core should do alone: several tiles of either
// height, so that the panels are used more than once.
inline constexpr int64_t kTaskRows = 96;

// Consecutive panels of one task.
struct PanelRun {
  int64_t first, last;
};
using PanelRuns = absl::InlinedVector<PanelRun, 64>;

// Cuts panels into runs of `least` to `most`: long ones at both ends, from which threads take their
// tasks, one at the front and the others at the back, and short ones where they meet, so that they
// end together. Where the panels are used up, a run may have fewer.
inline PanelRuns CutPanels(int64_t num_panels, int64_t least, int64_t most, int64_t num_threads) {
  PanelRuns front, back;
  int64_t first = 0, last = num_panels;
  for (int64_t turn = 0; first < last; ++turn) {
    const int64_t wanted = std::clamp<int64_t>((last - first) / (2 * num_threads), least, most);
    const int64_t size = std::min(wanted, last - first);
    if (turn % num_threads == 0) {
      front.push_back({first, first + size});
      first += size;
    } else {
      back.push_back({last - size, last});
      last -= size;
    }
  }
  front.insert(front.end(), back.rbegin(), back.rend());
  return front;
}

inline GemmKernels::Expand<float> ExpandKernel(const GemmKernels& kernels, const float*) {
  return kernels.expand_f32;
}
inline GemmKernels::Expand<uint16_t> ExpandKernel(const GemmKernels& kernels, const uint16_t*) {
  return kernels.expand_bf16;
}
inline void Store(const GemmKernels& kernels, const TileStore<float>& store) {
  kernels.store_f32(store);
}
inline void Store(const GemmKernels& kernels, const TileStore<uint16_t>& store) {
  kernels.store_bf16(store);
}

// An update and the part of a tile of y that it adds to.
struct TilePart {
  const PanelUpdate* update;
  int64_t begin, end;  // rows of y, counted as the updates do
  int64_t from, to;    // panels of `up`
};
using TileParts = absl::InlinedVector<TilePart, 2 * kMaxTileRows>;

// What the updates have for a tile of sums at (row, panel), in their order.
template <typename T>
TileParts PartsOf(const ProductOutput<T>& o, int64_t row, int64_t rows, int64_t panel,
                  int64_t num_panels) {
  TileParts parts;
  const int64_t first_row = row + o.first_row;  // as the updates count
  for (const PanelUpdate& update : o.updates.panels) {
    const int64_t first_panel = update.column / kPanelColumns;
    const TilePart part = {&update, std::max(update.begin, first_row),
                           std::min(update.end, first_row + rows),
                           std::max<int64_t>(panel - first_panel, 0),
                           std::min(panel + num_panels - first_panel, update.num_panels)};
    if (part.begin < part.end && part.from < part.to) {
      parts.push_back(part);
    }
  }
  return parts;
}

template <typename T>
const T* PanelsOf(const TilePart& part) {
  return static_cast<const T*>(part.update->panels) + part.from * part.update->panel_stride;
}

// The memory that AddUpdates will read for a tile. It is fetched while the tile's sums are
// computed, which takes longer: pieces too short for the processor to see a stream in.
template <typename T>
absl::InlinedVector<MemoryRun, 2 * kMaxTileRows> UpdateRuns(const TileParts& parts) {
  constexpr int64_t kMaxBytes = 128 * 1024;  // a part of the cache that they go to
  absl::InlinedVector<MemoryRun, 2 * kMaxTileRows> runs;
  int64_t bytes = 0;
  for (const TilePart& part : parts) {
    const char* const begin = reinterpret_cast<const char*>(PanelsOf<T>(part));
    const int64_t size =
        (part.to - part.from) * part.update->panel_stride * static_cast<int64_t>(sizeof(T));
    bytes += size;
    if (bytes > kMaxBytes) {
      break;
    }
    runs.push_back({begin, begin + size});
  }
  return runs;
}

// Adds them to the tile of sums at (row, panel).
template <typename T>
void AddUpdates(const GemmKernels& kernels, const TileParts& parts, int64_t first_row,
                int64_t panel, float* tile, int64_t tile_stride) {
  for (const TilePart& part : parts) {
    const PanelUpdate& update = *part.update;
    const int64_t tile_panel = update.column / kPanelColumns + part.from - panel;
    const T* const panels = PanelsOf<T>(part);
    ExpandKernel(kernels, panels)(
        update.shrunk + (part.begin - update.begin) * update.rank, part.end - part.begin, panels,
        update.panel_stride, part.to - part.from, update.rank, update.scale,
        tile + (part.begin - first_row) * tile_stride + tile_panel * kPanelColumns, tile_stride);
  }
}

// A tile of rows by a few panels: its sums, what is added to them, and their place.
template <typename T, typename Sums>
void MultiplyTile(const GemmKernels& kernels, const ProductOutput<T>& o, const Sums& sums,
                  int64_t row, int64_t rows, int64_t panel, int64_t num_panels) {
  alignas(64) float tile[kMaxTileRows * kTilePanels * kPanelColumns];
  const int64_t tile_stride = num_panels * kPanelColumns;
  const int64_t column = panel * kPanelColumns;
  const TileParts parts = PartsOf(o, row, rows, panel, num_panels);
  const auto runs = UpdateRuns<T>(parts);
  FetchList fetch(runs.data(), runs.data() + runs.size());
  sums(row, rows, panel, num_panels, tile, tile_stride, fetch);
  if (!parts.empty() && o.updates.before != nullptr) {
    o.updates.before->Wait();
  }
  AddUpdates<T>(kernels, parts, row + o.first_row, panel, tile, tile_stride);
  TileStore<T> store;
  store.tile = tile;
  store.tile_stride = tile_stride;
  store.rows = rows;
  store.columns = std::min(tile_stride, o.columns - column);
  store.y = o.y + row * o.y_stride + column;
  store.y_stride = o.y_stride;
  store.bias = o.bias != nullptr ? o.bias + column : nullptr;
  Store(kernels, store);
}

}  // namespace panel_product

/// Runs all tiles of a product on the kernels' threads.
///   panel_bytes  of one panel of weights
///   sums(row, rows, panel, num_panels, tile, tile_stride, fetch) writes a tile of fp32 sums and
///   fetches the lines of a FetchList meanwhile; rows is at most kernels.tile_rows
template <typename T, typename Sums>
void RunProduct(const GemmKernels& kernels, const ProductOutput<T>& o, int64_t panel_bytes,
                const Sums& sums) {
  using namespace panel_product;  // NOLINT: its own constants
  const int64_t num_panels = (o.columns + kPanelColumns - 1) / kPanelColumns;
  int64_t task_panels = std::clamp<int64_t>(kTaskWeightBytes / panel_bytes, 1, kMaxTaskPanels);
  if (task_panels > kTilePanels) {
    task_panels = task_panels / kTilePanels * kTilePanels;
  }
  // Each tile looks at all updates, and few rows of one are added to several panels at once.
  const int64_t least_panels = o.updates.panels.empty() ? 1 : std::min(kTilePanels, task_panels);
  const PanelRuns runs = CutPanels(num_panels, least_panels, task_panels, NumKernelThreads());
  const int64_t num_runs = std::ssize(runs);
  // Shorter ones where there are not enough of them for every thread to get some.
  const int64_t task_rows = num_panels < 4 * NumKernelThreads() ? kTaskRows : o.rows;
  const int64_t row_groups = (o.rows + task_rows - 1) / task_rows;
  // About 8 bytes of weights a nanosecond, and 8 rows at no other cost than these.
  const int64_t cost =
      num_panels * panel_bytes / num_runs / 8 * (1 + std::min(o.rows, task_rows) / 8);
  SharedTasks* const before = o.updates.before;
  const int64_t shared_cost = before == nullptr ? 0 : before->cost() / (num_runs * row_groups);
  ParallelFor(num_runs * row_groups, cost + shared_cost, [&](int64_t task) {
    if (before != nullptr) {
      before->Help();
    }
    const auto [first, last] = runs[static_cast<size_t>(task / row_groups)];
    const int64_t row_end = std::min(o.rows, (task % row_groups + 1) * task_rows);
    for (int64_t row = task % row_groups * task_rows; row < row_end; row += kernels.tile_rows) {
      const int64_t rows = std::min(kernels.tile_rows, row_end - row);
      for (int64_t panel = first; panel < last; panel += kTilePanels) {
        MultiplyTile(kernels, o, sums, row, rows, panel, std::min(kTilePanels, last - panel));
      }
    }
  });
}

}  // namespace tenon

#endif  // TENON_ADAPTERS_KERNELS_PANEL_PRODUCT_H_
