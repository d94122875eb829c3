#include "adapters/kernels/low_rank.h"

#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <functional>
#include <iterator>
#include <utility>
#include <vector>

#include "adapters/kernels/gemm_kernels.h"
#include "adapters/kernels/pack_panel.h"
#include "adapters/kernels/parallel.h"
#include "adapters/kernels/shared_tasks.h"
#include "adapters/kernels/tensor_data.h"

namespace tenon {
namespace {

// Rows that one task shrinks: enough to read `down` seldom, few enough to share a prompt's rows.
constexpr int64_t kShrinkRows = 32;
// Panels of `up` that one task expands with, at most.
constexpr int64_t kExpandPanels = 4;

// A term and its part of the buffer between the two products.
struct Segment {
  const LowRankTerm* term;
  int64_t rows;
  int64_t offset;  // of its [rows, rank] part
};

struct ShrinkTask {
  const Segment* segment;
  int64_t begin, end;   // rows of the segment
  const void* weights;  // `down`; null when the delta is dense
};

bool IsMatrix(const at::Tensor& tensor, int64_t rows, int64_t columns, at::ScalarType dtype) {
  return tensor.dim() == 2 && tensor.size(0) == rows && tensor.size(1) == columns &&
         tensor.is_contiguous() && tensor.scalar_type() == dtype;
}

// y's columns: as many as the delta has outputs.
void CheckTerm(const LowRankTerm& term, const at::Tensor& x, int64_t y_columns) {
  TORCH_CHECK(term.delta != nullptr && term.delta->defined(), "low rank: a term has no delta");
  const LowRankDelta& delta = *term.delta;
  TORCH_CHECK(0 <= term.begin && term.begin <= term.end && term.end <= x.size(0), "low rank: rows ",
              term.begin, " to ", term.end, " of ", x.size(0));
  const bool fits =
      delta.in_features() == x.size(1) && delta.out_features() == y_columns &&
      delta.dtype() == x.scalar_type() &&
      (!delta.down.defined() || IsMatrix(delta.down, delta.rank(), x.size(1), x.scalar_type())) &&
      (delta.packed_up.defined() || IsMatrix(delta.up, y_columns, delta.rank(), x.scalar_type()));
  TORCH_CHECK(fits, "low rank: the delta is ", delta.dtype(), " [", delta.out_features(), ", ",
              delta.rank(), ", ", delta.in_features(), "], x is ", x.scalar_type(), " ", x.sizes(),
              ", y has ", y_columns, " columns");
}

void CheckInput(const at::Tensor& x) {
  TORCH_CHECK(x.dim() == 2 && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16) &&
                  (x.stride(1) == 1 || x.size(1) == 1),
              "low rank: x is ", x.scalar_type(), " ", x.sizes());
}

void CheckOperands(const at::Tensor& x, std::span<const LowRankTerm> terms, const at::Tensor& y) {
  CheckInput(x);
  TORCH_CHECK(y.dim() == 2 && x.size(0) == y.size(0) && x.scalar_type() == y.scalar_type() &&
                  (y.stride(1) == 1 || y.size(1) == 1),
              "low rank: x is ", x.scalar_type(), " ", x.sizes(), ", y is ", y.scalar_type(), " ",
              y.sizes());
  for (const LowRankTerm& term : terms) {
    CheckTerm(term, x, y.size(1));
  }
}

void Dot(const GemmKernels& kernels, const float* x, int64_t x_stride, int64_t rows, const float* w,
         int64_t columns, int64_t k, float* out) {
  kernels.dot_f32(x, x_stride, rows, w, k, columns, k, out, columns);
}
void Dot(const GemmKernels& kernels, const uint16_t* x, int64_t x_stride, int64_t rows,
         const uint16_t* w, int64_t columns, int64_t k, float* out) {
  kernels.dot_bf16(x, x_stride, rows, w, k, columns, k, out, columns);
}
void Tile(const GemmKernels& kernels, const float* x, int64_t rows, const float* panels,
          int64_t panel_stride, int64_t num_panels, int64_t k, float* tile) {
  FetchList nothing;
  kernels.tile_f32(x, k, rows, panels, panel_stride, num_panels, k, tile,
                   num_panels * kPanelColumns, nothing);
}
void Tile(const GemmKernels& kernels, const float* x, int64_t rows, const uint16_t* panels,
          int64_t panel_stride, int64_t num_panels, int64_t k, float* tile) {
  FetchList nothing;
  kernels.tile_f32_bf16(x, k, rows, panels, panel_stride, num_panels, k, tile,
                        num_panels * kPanelColumns, nothing);
}
void Store(const GemmKernels& kernels, const TileStore<float>& store) { kernels.store_f32(store); }
void Store(const GemmKernels& kernels, const TileStore<uint16_t>& store) {
  kernels.store_bf16(store);
}

void Widen(const GemmKernels&, const float* x, int64_t n, float* y) { std::copy_n(x, n, y); }
void Widen(const GemmKernels& kernels, const uint16_t* x, int64_t n, float* y) {
  kernels.widen(x, n, y);
}

const void* ShrinkWeights(const LowRankDelta& delta) {
  const at::Tensor& down = delta.down_pairs.defined() ? delta.down_pairs : delta.down;
  return down.defined() ? down.const_data_ptr() : nullptr;
}

// In the order of the weights in memory: what one adapter has for the parts of a product lies
// together (CompiledAdapter::Compact), and is read as one stream.
std::vector<ShrinkTask> ShrinkTasks(std::span<const Segment> segments) {
  std::vector<ShrinkTask> tasks;
  tasks.reserve(segments.size());
  for (const Segment& segment : segments) {
    const void* const weights = ShrinkWeights(*segment.term->delta);
    for (int64_t begin = 0; begin < segment.rows; begin += kShrinkRows) {
      tasks.push_back({&segment, begin, std::min(segment.rows, begin + kShrinkRows), weights});
    }
  }
  std::sort(tasks.begin(), tasks.end(), [](const ShrinkTask& a, const ShrinkTask& b) {
    return a.weights != b.weights ? std::less<>()(a.weights, b.weights) : a.begin < b.begin;
  });
  return tasks;
}

// The rows of one task: x @ down^T, or x itself in fp32 when the delta is dense.
template <typename T>
void ShrinkRows(const GemmKernels& kernels, const at::Tensor& x, const ShrinkTask& task,
                const ShrinkTask* next, float* shrunk) {
  const LowRankDelta& delta = *task.segment->term->delta;
  const int64_t rank = delta.rank(), rows = task.end - task.begin;
  const T* const input = Data<T>(x) + (task.segment->term->begin + task.begin) * x.stride(0);
  float* const output = shrunk + task.segment->offset + task.begin * rank;
  if constexpr (sizeof(T) == 2) {
    if (delta.down_pairs.defined() && kernels.pairs_bf16 != nullptr) {
      kernels.pairs_bf16(input, x.stride(0), rows, Data<uint16_t>(delta.down_pairs), rank,
                         x.size(1), output, next != nullptr ? next->weights : nullptr);
      return;
    }
  }
  if (!delta.dense()) {
    const at::Tensor down = delta.DownMatrix();
    Dot(kernels, input, x.stride(0), rows, Data<T>(down), rank, x.size(1), output);
    return;
  }
  for (int64_t row = 0; row < rows; ++row) {
    Widen(kernels, input + row * x.stride(0), rank, output + row * rank);
  }
}

// As many nanoseconds, about, as all of them take.
int64_t ShrinkCost(std::span<const Segment> segments, int64_t in_features) {
  int64_t cost = 0;
  for (const Segment& segment : segments) {
    cost += segment.rows * segment.term->delta->rank() * in_features / 8;
  }
  return cost;
}

// One of `tasks`, and maybe the one behind it.
template <typename T>
void ShrinkTaskRows(const GemmKernels& kernels, const at::Tensor& x,
                    std::span<const ShrinkTask> tasks, int64_t task, int64_t next, float* shrunk) {
  const bool has_next = 0 <= next && next < std::ssize(tasks);
  ShrinkRows<T>(kernels, x, tasks[static_cast<size_t>(task)],
                has_next ? &tasks[static_cast<size_t>(next)] : nullptr, shrunk);
}

// What Expand multiplies with, for all segments.
template <typename T>
void Shrink(const GemmKernels& kernels, const at::Tensor& x, std::span<const Segment> segments,
            float* shrunk) {
  const std::vector<ShrinkTask> tasks = ShrinkTasks(segments);
  const int64_t num_tasks = std::ssize(tasks);
  ParallelFor(
      num_tasks, ShrinkCost(segments, x.size(1)) / std::max<int64_t>(num_tasks, 1),
      [&](int64_t i) { ShrinkTaskRows<T>(kernels, x, tasks, i, LikelyNextTask(i), shrunk); });
}

// The panels [panel, panel + num_panels) of delta.up: packed already, or now, into `scratch`.
template <typename T>
const T* UpPanels(const LowRankDelta& delta, int64_t panel, int64_t num_panels,
                  std::vector<T>& scratch) {
  const int64_t rank = delta.rank();
  const int64_t stride = PanelElements<T>(rank);
  if (delta.packed_up.defined()) {
    return Data<T>(delta.packed_up.panels()) + panel * stride;
  }
  scratch.resize(static_cast<size_t>(num_panels * stride));
  for (int64_t p = 0; p < num_panels; ++p) {
    const T* rows[kPanelColumns];
    const int64_t first = (panel + p) * kPanelColumns;
    const int64_t count = std::min(kPanelColumns, delta.up.size(0) - first);
    for (int64_t c = 0; c < count; ++c) {
      rows[c] = Data<T>(delta.up) + (first + c) * rank;
    }
    PackPanel<T>({rows, static_cast<size_t>(count)}, rank, scratch.data() + p * stride);
  }
  return scratch.data();
}

// y += weight * scaling * shrunk @ up^T for one segment and num_panels panels of columns.
template <typename T>
void ExpandSegment(const GemmKernels& kernels, const Segment& segment, const float* shrunk,
                   int64_t panel, int64_t num_panels, const at::Tensor& y,
                   std::vector<T>& scratch) {
  alignas(64) float tile[kMaxTileRows * kExpandPanels * kPanelColumns];
  const LowRankDelta& delta = *segment.term->delta;
  const int64_t rank = delta.rank();
  const T* panels = UpPanels(delta, panel, num_panels, scratch);
  const int64_t column = panel * kPanelColumns;
  for (int64_t row = 0; row < segment.rows; row += kernels.tile_rows) {
    TileStore<T> store;
    store.rows = std::min(kernels.tile_rows, segment.rows - row);
    Tile(kernels, shrunk + segment.offset + row * rank, store.rows, panels, PanelElements<T>(rank),
         num_panels, rank, tile);
    store.tile = tile;
    store.tile_stride = num_panels * kPanelColumns;
    store.columns = std::min(store.tile_stride, y.size(1) - column);
    store.y = Data<T>(y) + (segment.term->begin + row) * y.stride(0) + column;
    store.y_stride = y.stride(0);
    store.accumulate = true;
    store.scale = segment.term->weight * delta.scaling;
    Store(kernels, store);
  }
}

// A task owns some columns of y and adds all segments to them in order, so that segments may share
// rows.
template <typename T>
void Expand(const GemmKernels& kernels, std::span<const Segment> segments, const float* shrunk,
            const at::Tensor& y) {
  const int64_t num_panels = (y.size(1) + kPanelColumns - 1) / kPanelColumns;
  const int64_t num_tasks = (num_panels + kExpandPanels - 1) / kExpandPanels;
  int64_t cost = 0;
  for (const Segment& segment : segments) {
    cost += segment.rows * segment.term->delta->rank() * kExpandPanels * kPanelColumns / 8;
  }
  ParallelFor(num_tasks, cost, [&](int64_t task) {
    const int64_t panel = task * kExpandPanels;
    std::vector<T> scratch;
    for (const Segment& segment : segments) {
      ExpandSegment(kernels, segment, shrunk, panel, std::min(kExpandPanels, num_panels - panel), y,
                    scratch);
    }
  });
}

// Where the first product of each term goes; terms that do nothing are left out.
class Segments {
 public:
  void Add(const LowRankTerm& term) {
    const int64_t rows = term.end - term.begin;
    if (rows > 0 && term.delta->rank() > 0) {
      list_.push_back({&term, rows, size_});
      size_ += rows * term.delta->rank();
    }
  }
  std::span<const Segment> list() const { return list_; }
  /// Elements of fp32 for all.
  size_t size() const { return static_cast<size_t>(size_); }

 private:
  std::vector<Segment> list_;
  int64_t size_ = 0;
};

template <typename T>
void Apply(const at::Tensor& x, std::span<const LowRankTerm> terms, const at::Tensor& y) {
  Segments all;
  for (const LowRankTerm& term : terms) {
    all.Add(term);
  }
  const std::span<const Segment> segments = all.list();
  if (segments.empty()) {
    return;
  }
  std::vector<float> shrunk(all.size());
  const GemmKernels& kernels = ActiveGemmKernels();
  Shrink<T>(kernels, x, segments, shrunk.data());
  Expand<T>(kernels, segments, shrunk.data(), y);
}

}  // namespace

void ApplyLowRank(const at::Tensor& x, std::span<const LowRankTerm> terms, const at::Tensor& y) {
  CheckOperands(x, terms, y);
  if (x.scalar_type() == at::kFloat) {
    Apply<float>(x, terms, y);
  } else {
    Apply<uint16_t>(x, terms, y);
  }
}

bool LowRankUpdate::Fits(int64_t column) { return column % kPanelColumns == 0; }

// The first product of all terms, as tasks of the second one's threads.
class LowRankUpdate::Shrinking {
 public:
  Shrinking(at::Tensor x, Segments segments)
      : x_(std::move(x)),
        segments_(std::move(segments)),
        tasks_(ShrinkTasks(segments_.list())),
        shrunk_(segments_.size()),
        shared_(std::ssize(tasks_), ShrinkCost(segments_.list(), x_.size(1)),
                [this](int64_t task, int64_t next) { Run(task, next); }) {}

  std::span<const Segment> segments() const { return segments_.list(); }
  const float* shrunk() const { return shrunk_.data(); }
  SharedTasks* tasks() { return &shared_; }

 private:
  void Run(int64_t task, int64_t next) {
    const GemmKernels& kernels = ActiveGemmKernels();
    if (x_.scalar_type() == at::kFloat) {
      ShrinkTaskRows<float>(kernels, x_, tasks_, task, next, shrunk_.data());
    } else {
      ShrinkTaskRows<uint16_t>(kernels, x_, tasks_, task, next, shrunk_.data());
    }
  }

  const at::Tensor x_;
  const Segments segments_;
  const std::vector<ShrinkTask> tasks_;
  std::vector<float> shrunk_;
  SharedTasks shared_;
};

LowRankUpdate::LowRankUpdate() = default;
LowRankUpdate::LowRankUpdate(LowRankUpdate&&) = default;
LowRankUpdate& LowRankUpdate::operator=(LowRankUpdate&&) = default;
LowRankUpdate::~LowRankUpdate() = default;

LowRankUpdate::LowRankUpdate(const at::Tensor& x, std::span<const Term> terms) {
  CheckInput(x);
  Segments segments;
  for (const Term& placed : terms) {
    TORCH_CHECK(placed.term.delta != nullptr && placed.term.delta->packed_up.defined(),
                "low rank: a term of a product has no packed delta");
    CheckTerm(placed.term, x, placed.term.delta->out_features());
    segments.Add(placed.term);
  }
  if (segments.list().empty()) {
    return;
  }
  shrinking_ = std::make_unique<Shrinking>(x, std::move(segments));
  panels_.reserve(shrinking_->segments().size());
  auto placed = terms.begin();
  for (const Segment& segment : shrinking_->segments()) {
    while (&placed->term != segment.term) {
      ++placed;
    }
    const LowRankTerm& term = *segment.term;
    panels_.emplace_back(term.begin, term.end, placed->column, &term.delta->packed_up,
                         shrinking_->shrunk() + segment.offset, term.weight * term.delta->scaling);
  }
}

ProductUpdates LowRankUpdate::updates() const {
  return {panels_, shrinking_ == nullptr ? nullptr : shrinking_->tasks()};
}

}  // namespace tenon
