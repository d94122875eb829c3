#include "adapters/kernels/packed_matrix.h"

#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "adapters/base/status_macros.h"
#include "adapters/kernels/gemm_kernels.h"
#include "adapters/kernels/pack_panel.h"
#include "adapters/kernels/parallel.h"

namespace tenon {
namespace {

// A task's panels should stay in a core's second-level cache while rows go by.
constexpr int64_t kTaskWeightBytes = 256 * 1024;
constexpr int64_t kMaxTaskPanels = 8;
// Rows of a task, when there are more rows than one core should do alone: several tiles, so that
// the panels are used more than once.
constexpr int64_t kTaskRows = 8 * kTileRows;

// What a product needs to know of its tensors; bf16 elements as uint16_t.
template <typename T>
struct Operands {
  const T* x = nullptr;
  int64_t x_stride = 0;
  const float* wide_x = nullptr;  // x as fp32, rows k apart; null when x itself can be multiplied
  const T* panels = nullptr;
  int64_t panel_stride = 0;
  const float* bias = nullptr;
  T* y = nullptr;
  int64_t y_stride = 0;
  int64_t k = 0, columns = 0;
};

void MultiplyTile(const GemmKernels& kernels, const Operands<float>& o, int64_t row, int64_t rows,
                  int64_t panel, int64_t num_panels, float* tile, int64_t tile_stride) {
  kernels.tile_f32(o.x + row * o.x_stride, o.x_stride, rows, o.panels + panel * o.panel_stride,
                   o.panel_stride, num_panels, o.k, tile, tile_stride);
}

void MultiplyTile(const GemmKernels& kernels, const Operands<uint16_t>& o, int64_t row,
                  int64_t rows, int64_t panel, int64_t num_panels, float* tile,
                  int64_t tile_stride) {
  const uint16_t* panels = o.panels + panel * o.panel_stride;
  if (o.wide_x != nullptr) {
    kernels.tile_f32_bf16(o.wide_x + row * o.k, o.k, rows, panels, o.panel_stride, num_panels, o.k,
                          tile, tile_stride);
  } else {
    kernels.tile_bf16(o.x + row * o.x_stride, o.x_stride, rows, panels, o.panel_stride, num_panels,
                      o.k, tile, tile_stride);
  }
}

void Store(const GemmKernels& kernels, const TileStore<float>& store) { kernels.store_f32(store); }
void Store(const GemmKernels& kernels, const TileStore<uint16_t>& store) {
  kernels.store_bf16(store);
}

// Rows [row, row_end) by panels [panel, panel + num_panels).
template <typename T>
void MultiplyTask(const GemmKernels& kernels, const Operands<T>& o, int64_t row, int64_t row_end,
                  int64_t panel, int64_t num_panels) {
  alignas(64) float tile[kTileRows * kMaxTaskPanels * kPanelColumns];
  const int64_t tile_stride = num_panels * kPanelColumns;
  const int64_t column = panel * kPanelColumns;
  for (; row < row_end; row += kTileRows) {
    const int64_t rows = std::min(kTileRows, row_end - row);
    MultiplyTile(kernels, o, row, rows, panel, num_panels, tile, tile_stride);
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
}

template <typename T>
void MultiplyAll(const GemmKernels& kernels, const Operands<T>& o, int64_t rows,
                 int64_t num_panels) {
  const int64_t panel_bytes = o.panel_stride * static_cast<int64_t>(sizeof(T));
  int64_t task_panels = std::clamp<int64_t>(kTaskWeightBytes / panel_bytes, 1, kMaxTaskPanels);
  // Enough tasks for every thread to get some; for their sake first narrower, then shorter ones.
  const int64_t want_tasks = 4 * NumKernelThreads();
  task_panels = std::clamp<int64_t>(num_panels / want_tasks, 1, task_panels);
  const int64_t panel_groups = (num_panels + task_panels - 1) / task_panels;
  const int64_t task_rows = panel_groups < want_tasks ? kTaskRows : rows;
  const int64_t row_groups = (rows + task_rows - 1) / task_rows;
  // About 16 multiply-adds or 8 bytes of weights a nanosecond.
  const int64_t cost = task_panels * panel_bytes / 8 +
                       task_panels * kPanelColumns * o.k * std::min(rows, task_rows) / 16;
  ParallelFor(panel_groups * row_groups, cost, [&](int64_t task) {
    const int64_t panel = task / row_groups * task_panels;
    const int64_t row = task % row_groups * task_rows;
    MultiplyTask(kernels, o, row, std::min(rows, row + task_rows), panel,
                 std::min(task_panels, num_panels - panel));
  });
}

// x as fp32 rows, k apart.
std::vector<float> WidenRows(const GemmKernels& kernels, const Operands<uint16_t>& o,
                             int64_t rows) {
  std::vector<float> wide(static_cast<size_t>(rows * o.k));
  ParallelFor(rows, o.k / 8, [&](int64_t row) {
    kernels.widen(o.x + row * o.x_stride, o.k, wide.data() + row * o.k);
  });
  return wide;
}

template <typename T>
T* Data(const at::Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

template <typename T>
Operands<T> MakeOperands(const at::Tensor& x, const at::Tensor& panels, const at::Tensor& bias,
                         const at::Tensor& y) {
  Operands<T> o;
  o.x = Data<T>(x);
  o.x_stride = x.stride(0);
  o.panels = Data<T>(panels);
  o.panel_stride = panels.stride(0);
  o.bias = bias.defined() ? Data<float>(bias) : nullptr;
  o.y = Data<T>(y);
  o.y_stride = y.stride(0);
  o.k = x.size(1);
  o.columns = y.size(1);
  return o;
}

absl::Status CheckWeights(std::span<const at::Tensor> weights) {
  if (weights.empty()) {
    return absl::InvalidArgumentError("no weights to pack");
  }
  for (size_t i = 0; i < weights.size(); ++i) {
    const at::Tensor& weight = weights[i];
    if (!weight.defined() || !weight.is_cpu() || weight.dim() != 2 || weight.numel() == 0 ||
        (weight.scalar_type() != at::kFloat && weight.scalar_type() != at::kBFloat16) ||
        (weight.stride(1) != 1 && weight.size(1) != 1)) {
      return absl::InvalidArgumentError(
          absl::StrCat("weight ", i, " is not a row-major fp32 or bf16 matrix on the CPU"));
    }
    if (weight.size(1) != weights[0].size(1) || weight.scalar_type() != weights[0].scalar_type()) {
      return absl::InvalidArgumentError(
          absl::StrCat("weight ", i, " has other inputs or another dtype than the first"));
    }
  }
  return absl::OkStatus();
}

// Row pointers into the stacked weights, 32 at a time: a panel may span two of them.
template <typename T>
void PackAll(std::span<const at::Tensor> weights, int64_t k, const at::Tensor& panels) {
  std::vector<const T*> rows;
  for (const at::Tensor& weight : weights) {
    for (int64_t r = 0; r < weight.size(0); ++r) {
      rows.push_back(Data<T>(weight) + r * weight.stride(0));
    }
  }
  ParallelFor(panels.size(0), k * kPanelColumns, [&](int64_t p) {
    const size_t first = static_cast<size_t>(p * kPanelColumns);
    const size_t columns = std::min<size_t>(kPanelColumns, rows.size() - first);
    PackPanel<T>({rows.data() + first, columns}, k, Data<T>(panels) + p * panels.stride(0));
  });
}

template <typename T>
void UnpackRows(const at::Tensor& index, const at::Tensor& panels, int64_t out_features,
                const at::Tensor& rows) {
  const int64_t group = panels.size(3);
  const int64_t* const wanted = index.const_data_ptr<int64_t>();
  for (int64_t r = 0; r < index.size(0); ++r) {
    TORCH_CHECK(wanted[r] >= 0 && wanted[r] < out_features, "packed matrix: row ", wanted[r],
                " of ", out_features);
    const T* const column = Data<T>(panels) + wanted[r] / kPanelColumns * panels.stride(0) +
                            wanted[r] % kPanelColumns * group;
    T* const row = Data<T>(rows) + r * rows.stride(0);
    for (int64_t i = 0; i < rows.size(1); ++i) {
      row[i] = column[i / group * kPanelColumns * group + i % group];
    }
  }
}

}  // namespace

absl::StatusOr<PackedMatrix> PackedMatrix::Pack(std::span<const at::Tensor> weights) {
  TENON_RETURN_IF_ERROR(CheckWeights(weights));
  PackedMatrix matrix;
  matrix.in_features_ = weights[0].size(1);
  for (const at::Tensor& weight : weights) {
    matrix.out_features_ += weight.size(0);
  }
  const at::ScalarType dtype = weights[0].scalar_type();
  const int64_t group = dtype == at::kFloat ? 1 : 2;
  matrix.panels_ = at::empty({(matrix.out_features_ + kPanelColumns - 1) / kPanelColumns,
                              (matrix.in_features_ + group - 1) / group, kPanelColumns, group},
                             at::TensorOptions().dtype(dtype));
  if (dtype == at::kFloat) {
    PackAll<float>(weights, matrix.in_features_, matrix.panels_);
  } else {
    PackAll<uint16_t>(weights, matrix.in_features_, matrix.panels_);
  }
  return matrix;
}

at::Tensor PackedMatrix::Unpack() const {
  const at::Tensor rows =
      panels_.permute({0, 2, 1, 3})
          .reshape({num_panels() * kPanelColumns, panels_.size(1) * panels_.size(3)});
  return rows.narrow(0, 0, out_features_).narrow(1, 0, in_features_).contiguous();
}

at::Tensor PackedMatrix::Rows(const at::Tensor& index) const {
  TORCH_CHECK(index.dim() == 1 && index.scalar_type() == at::kLong && index.is_contiguous(),
              "packed matrix: index is ", index.scalar_type(), " ", index.sizes(),
              ", want int64 [R]");
  const at::Tensor rows = at::empty({index.size(0), in_features_}, panels_.options());
  if (dtype() == at::kFloat) {
    UnpackRows<float>(index, panels_, out_features_, rows);
  } else {
    UnpackRows<uint16_t>(index, panels_, out_features_, rows);
  }
  return rows;
}

void PackedMatrix::Multiply(const at::Tensor& x, const at::Tensor& bias,
                            const at::Tensor& y) const {
  TORCH_CHECK(x.dim() == 2 && x.size(1) == in_features_ && x.scalar_type() == dtype() &&
                  (x.stride(1) == 1 || x.size(1) == 1),
              "packed matrix: x is ", x.scalar_type(), " ", x.sizes(), ", want ", dtype(), " [T, ",
              in_features_, "]");
  TORCH_CHECK(y.dim() == 2 && y.size(0) == x.size(0) && y.size(1) == out_features_ &&
                  y.scalar_type() == dtype() && (y.stride(1) == 1 || y.size(1) == 1),
              "packed matrix: y is ", y.scalar_type(), " ", y.sizes(), ", want ", dtype(), " [",
              x.size(0), ", ", out_features_, "]");
  const GemmKernels& kernels = ActiveGemmKernels();
  const int64_t rows = x.size(0);
  if (rows == 0) {
    return;
  }
  if (dtype() == at::kFloat) {
    MultiplyAll(kernels, MakeOperands<float>(x, panels_, bias, y), rows, num_panels());
    return;
  }
  Operands<uint16_t> operands = MakeOperands<uint16_t>(x, panels_, bias, y);
  std::vector<float> wide;
  if (kernels.tile_bf16 == nullptr) {
    wide = WidenRows(kernels, operands, rows);
    operands.wide_x = wide.data();
  }
  MultiplyAll(kernels, operands, rows, num_panels());
}

}  // namespace tenon
