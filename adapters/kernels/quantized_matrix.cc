#include "adapters/kernels/quantized_matrix.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "adapters/base/status_macros.h"
#include "adapters/kernels/gemm_kernels.h"
#include "adapters/kernels/huge_pages.h"
#include "adapters/kernels/panel_product.h"
#include "adapters/kernels/parallel.h"
#include "adapters/kernels/tensor_data.h"

namespace tenon {
namespace {

constexpr int64_t kMaxInputs = 131072;  // 127 * 127 * 131072 < 2^31

int64_t PaddedInputs(int64_t inputs) { return (inputs + kInt8Group - 1) / kInt8Group * kInt8Group; }

float QuantizeRow(const GemmKernels& kernels, const float* x, int64_t k, int8_t* q) {
  return kernels.quantize_f32(x, k, q);
}
float QuantizeRow(const GemmKernels& kernels, const uint16_t* x, int64_t k, int8_t* q) {
  return kernels.quantize_bf16(x, k, q);
}

// Rows of x as int8, padded_k apart and zero behind k, and their scales.
struct QuantizedRows {
  std::unique_ptr<int8_t[]> values;
  std::vector<float> scales;
};

template <typename T>
QuantizedRows QuantizeRows(const GemmKernels& kernels, const T* x, int64_t x_stride, int64_t rows,
                           int64_t k, int64_t padded_k) {
  QuantizedRows quantized;
  quantized.values = std::make_unique_for_overwrite<int8_t[]>(static_cast<size_t>(rows * padded_k));
  quantized.scales.resize(static_cast<size_t>(rows));
  ParallelFor(rows, k / 4, [&](int64_t row) {
    int8_t* const values = quantized.values.get() + row * padded_k;
    quantized.scales[static_cast<size_t>(row)] =
        QuantizeRow(kernels, x + row * x_stride, k, values);
    std::fill(values + k, values + padded_k, int8_t{0});
  });
  return quantized;
}

// Quantizes output `column` into its panel. False when a weight is not finite.
bool PackColumn(const GemmKernels& kernels, const std::vector<float>& weights, int8_t* panel,
                int64_t lane, float* scale) {
  const auto k = static_cast<int64_t>(weights.size());
  std::vector<int8_t> q(weights.size());
  *scale = kernels.quantize_f32(weights.data(), k, q.data());
  for (int64_t i = 0; i < k; ++i) {
    panel[(i / 4 * kPanelColumns + lane) * 4 + i % 4] = q[static_cast<size_t>(i)];
  }
  return std::isfinite(*scale);
}

template <typename T>
void MultiplyRows(const at::Tensor& x, const at::Tensor& panels, const at::Tensor& scales,
                  const ProductOutput<T>& output) {
  const GemmKernels& kernels = ActiveGemmKernels();
  const int64_t panel_stride = panels.stride(0), padded_k = panels.size(1) * 4;
  const QuantizedRows rows =
      QuantizeRows(kernels, Data<T>(x), x.stride(0), x.size(0), x.size(1), padded_k);
  RunProduct(kernels, output, panel_stride,
             [&](int64_t row, int64_t num_rows, int64_t panel, int64_t num_panels, float* tile,
                 int64_t tile_stride, FetchList& fetch) {
               fetch.FetchAll();
               Int8Tile t;
               t.x = rows.values.get() + row * padded_k;
               t.x_scales = rows.scales.data() + row;
               t.rows = num_rows;
               t.k = padded_k;
               t.panels = Data<int8_t>(panels) + panel * panel_stride;
               t.panel_stride = panel_stride;
               t.w_scales = Data<float>(scales) + panel * kPanelColumns;
               t.num_panels = num_panels;
               t.tile = tile;
               t.tile_stride = tile_stride;
               kernels.tile_int8(t);
             });
}

}  // namespace

absl::StatusOr<QuantizedMatrix> QuantizedMatrix::Quantize(std::span<const at::Tensor> weights) {
  TENON_RETURN_IF_ERROR(CheckWeights(weights));
  if (weights[0].size(1) > kMaxInputs) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a weight of ", weights[0].size(1), " inputs cannot be quantized: at most ", kMaxInputs));
  }
  int64_t out = 0;
  for (const at::Tensor& weight : weights) {
    out += weight.size(0);
  }
  QuantizedMatrix matrix;
  matrix.dtype_ = weights[0].scalar_type();
  const int64_t k = matrix.in_features_ = weights[0].size(1);
  const int64_t num_panels = (out + kPanelColumns - 1) / kPanelColumns;
  const int64_t columns = num_panels * kPanelColumns;
  matrix.panels_ = at::empty({num_panels, PaddedInputs(k) / 4, kPanelColumns, 4}, at::kChar);
  AdviseHugePages(matrix.panels_);
  matrix.panels_.zero_();
  // The kernels read whole panels' scales.
  const at::Tensor scales = at::zeros({columns}, at::kFloat);
  const GemmKernels& kernels = ActiveGemmKernels();
  int64_t column = 0;
  for (const at::Tensor& weight : weights) {
    for (int64_t r = 0; r < weight.size(0); ++r, ++column) {
      const at::Tensor wide = weight.select(0, r).to(at::kFloat).contiguous();
      const std::vector<float> row(Data<float>(wide), Data<float>(wide) + k);
      if (!PackColumn(
              kernels, row,
              Data<int8_t>(matrix.panels_) + column / kPanelColumns * matrix.panels_.stride(0),
              column % kPanelColumns, Data<float>(scales) + column)) {
        return absl::InvalidArgumentError(
            absl::StrCat("output ", column, " of a weight has a value that is not finite"));
      }
    }
  }
  matrix.scales_ = scales.narrow(0, 0, out);
  return matrix;
}

void QuantizedMatrix::Multiply(const at::Tensor& x, const at::Tensor& bias, const at::Tensor& y,
                               const ProductUpdates& updates, int64_t first_row) const {
  CheckProduct(x, y, in_features_, out_features(), dtype_, updates.panels);
  if (x.size(0) == 0) {
    return;
  }
  if (dtype_ == at::kFloat) {
    MultiplyRows(x, panels_, scales_, MakeOutput<float>(bias, y, updates, first_row));
  } else {
    MultiplyRows(x, panels_, scales_, MakeOutput<uint16_t>(bias, y, updates, first_row));
  }
}

at::Tensor QuantizedMatrix::Rows(const at::Tensor& index) const {
  const at::Tensor rows = at::empty({index.size(0), in_features_}, at::kFloat);
  const int64_t* const wanted = index.const_data_ptr<int64_t>();
  for (int64_t r = 0; r < index.size(0); ++r) {
    TORCH_CHECK(wanted[r] >= 0 && wanted[r] < out_features(), "quantized matrix: row ", wanted[r],
                " of ", out_features());
    const int8_t* const column = Data<int8_t>(panels_) +
                                 wanted[r] / kPanelColumns * panels_.stride(0) +
                                 wanted[r] % kPanelColumns * 4;
    const float scale = Data<float>(scales_)[wanted[r]];
    float* const row = Data<float>(rows) + r * in_features_;
    for (int64_t i = 0; i < in_features_; ++i) {
      row[i] = scale * column[i / 4 * kPanelColumns * 4 + i % 4];
    }
  }
  return rows.to(dtype_);
}

at::Tensor QuantizedMatrix::Unpack() const {
  return Rows(at::arange(out_features(), at::TensorOptions(at::kLong)));
}

int64_t QuantizedMatrix::nbytes() const {
  return static_cast<int64_t>(panels_.nbytes() + scales_.nbytes());
}

}  // namespace tenon
