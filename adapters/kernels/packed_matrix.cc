#include "adapters/kernels/packed_matrix.h"

#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "adapters/base/status_macros.h"
#include "adapters/kernels/gemm_kernels.h"
#include "adapters/kernels/huge_pages.h"
#include "adapters/kernels/pack_panel.h"
#include "adapters/kernels/panel_product.h"
#include "adapters/kernels/parallel.h"
#include "adapters/kernels/tensor_data.h"

namespace tenon {
namespace {

// x as fp32 rows, k apart.
std::unique_ptr<float[]> WidenRows(const GemmKernels& kernels, const at::Tensor& x) {
  const int64_t rows = x.size(0), k = x.size(1), stride = x.stride(0);
  auto wide = std::make_unique_for_overwrite<float[]>(static_cast<size_t>(rows * k));
  const uint16_t* const source = Data<uint16_t>(x);
  ParallelFor(rows, k / 8,
              [&](int64_t row) { kernels.widen(source + row * stride, k, wide.get() + row * k); });
  return wide;
}

// A product of rows of x, of either type, with panels.
template <typename T, typename X, typename W>
void Run(const GemmKernels& kernels, GemmKernels::Tile<X, W> kernel, const X* x, int64_t x_stride,
         int64_t k, const at::Tensor& panels, const ProductOutput<T>& output) {
  const int64_t panel_stride = panels.stride(0);
  const W* const weights = Data<W>(panels);
  RunProduct(kernels, output, panel_stride * static_cast<int64_t>(sizeof(W)),
             [=](int64_t row, int64_t rows, int64_t panel, int64_t num_panels, float* tile,
                 int64_t tile_stride, FetchList& fetch) {
               kernel(x + row * x_stride, x_stride, rows, weights + panel * panel_stride,
                      panel_stride, num_panels, k, tile, tile_stride, fetch);
             });
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

void CheckProduct(const at::Tensor& x, const at::Tensor& y, int64_t in_features,
                  int64_t out_features, at::ScalarType dtype,
                  std::span<const PanelUpdate> updates) {
  TORCH_CHECK(x.dim() == 2 && x.size(1) == in_features && x.scalar_type() == dtype &&
                  (x.stride(1) == 1 || x.size(1) == 1),
              "packed matrix: x is ", x.scalar_type(), " ", x.sizes(), ", want ", dtype, " [T, ",
              in_features, "]");
  TORCH_CHECK(y.dim() == 2 && y.size(0) == x.size(0) && y.size(1) == out_features &&
                  y.scalar_type() == dtype && (y.stride(1) == 1 || y.size(1) == 1),
              "packed matrix: y is ", y.scalar_type(), " ", y.sizes(), ", want ", dtype, " [",
              x.size(0), ", ", out_features, "]");
  for (const PanelUpdate& update : updates) {
    TORCH_CHECK(update.up->dtype() == dtype && update.column % kPanelColumns == 0 &&
                    update.column + update.up->out_features() <= out_features,
                "an update of ", update.up->out_features(), " ", update.up->dtype(),
                " columns from ", update.column, " on a product of ", out_features, " ", dtype);
  }
}

PanelUpdate::PanelUpdate(int64_t first_row, int64_t row_end, int64_t first_column,
                         const PackedMatrix* packed_up, const float* rows, float factor)
    : begin(first_row),
      end(row_end),
      column(first_column),
      up(packed_up),
      shrunk(rows),
      scale(factor),
      panels(packed_up->panels().const_data_ptr()),
      panel_stride(packed_up->panel_stride()),
      num_panels(packed_up->num_panels()),
      rank(packed_up->in_features()) {}

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
  AdviseHugePages(matrix.panels_);
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

PackedMatrix PackedMatrix::OnDevice(at::Device device) const {
  PackedMatrix moved = *this;
  moved.panels_ = defined() ? panels_.to(device) : panels_;
  return moved;
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

void PackedMatrix::Multiply(const at::Tensor& x, const at::Tensor& bias, const at::Tensor& y,
                            const ProductUpdates& updates, int64_t first_row) const {
  CheckProduct(x, y, in_features_, out_features_, dtype(), updates.panels);
  if (x.size(0) == 0) {
    return;
  }
  const GemmKernels& kernels = ActiveGemmKernels();
  if (dtype() == at::kFloat) {
    Run(kernels, kernels.tile_f32, Data<float>(x), x.stride(0), in_features_, panels_,
        MakeOutput<float>(bias, y, updates, first_row));
    return;
  }
  const auto output = MakeOutput<uint16_t>(bias, y, updates, first_row);
  if (kernels.tile_bf16 != nullptr) {
    Run(kernels, kernels.tile_bf16, Data<uint16_t>(x), x.stride(0), in_features_, panels_, output);
    return;
  }
  const std::unique_ptr<float[]> wide = WidenRows(kernels, x);
  Run(kernels, kernels.tile_f32_bf16, wide.get(), in_features_, in_features_, panels_, output);
}

}  // namespace tenon
