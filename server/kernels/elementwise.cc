// Rows of norm, rotary embedding and activation over threads.
#include <c10/util/Exception.h>

#include "adapters/kernels/parallel.h"
#include "server/kernels/activation.h"
#include "server/kernels/norm.h"
#include "server/kernels/rope.h"
#include "server/kernels/vector_kernels.h"

namespace tenon {
namespace {

template <typename T>
T* Data(const at::Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

// Calls visit(float{}) or visit(uint16_t{}).
template <typename Visit>
void DispatchType(const at::Tensor& x, const char* name, Visit visit) {
  TORCH_CHECK(x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16, name,
              ": dtype is ", x.scalar_type(), ", want Float or BFloat16");
  if (x.scalar_type() == at::kFloat) {
    visit(float{});
  } else {
    visit(uint16_t{});
  }
}

// A matrix of that many rows and columns, contiguous within a row, of the given dtype.
void CheckRows(const at::Tensor& x, const char* name, int64_t rows, int64_t columns,
               at::ScalarType dtype) {
  TORCH_CHECK(x.dim() == 2 && x.size(0) == rows && x.size(1) == columns &&
                  x.scalar_type() == dtype && (x.stride(1) == 1 || columns == 1),
              name, " is ", x.scalar_type(), " ", x.sizes(), ", want ", dtype, " [", rows, ", ",
              columns, "], contiguous within a row");
}

// RmsNorm, after adding x to the residual when there is one.
void Normalize(const at::Tensor& x, const at::Tensor* residual, const at::Tensor& weight, float eps,
               const at::Tensor& y) {
  const at::ScalarType dtype = x.scalar_type();
  CheckRows(x, "norm: x", x.size(0), weight.numel(), dtype);
  CheckRows(y, "norm: y", x.size(0), x.size(1), dtype);
  if (residual != nullptr) {
    CheckRows(*residual, "norm: residual", x.size(0), x.size(1), dtype);
  }
  TORCH_CHECK(weight.dim() == 1 && weight.scalar_type() == dtype && weight.is_contiguous(),
              "norm: weight is ", weight.scalar_type(), " ", weight.sizes());
  DispatchType(x, "norm", [&]<typename T>(T) {
    const auto kernel = ActiveVectorKernels().of<T>().rms_norm;
    ParallelFor(x.size(0), x.size(1) / 4, [&](int64_t r) {
      NormRow<T> row;
      row.x = Data<T>(x) + r * x.stride(0);
      row.residual = residual != nullptr ? Data<T>(*residual) + r * residual->stride(0) : nullptr;
      row.weight = Data<T>(weight);
      row.y = Data<T>(y) + r * y.stride(0);
      row.width = x.size(1);
      row.eps = eps;
      kernel(row);
    });
  });
}

void CheckRope(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin,
               const at::Tensor& positions) {
  TORCH_CHECK(x.dim() == 3 && x.size(2) % 2 == 0 && (x.stride(2) == 1 || x.size(2) == 1) &&
                  (x.stride(1) == x.size(2) || x.size(1) == 1),
              "rope: x is ", x.sizes(), " with strides ", x.strides(),
              ", want [T, heads, head_dim], contiguous within a token");
  for (const at::Tensor* table : {&cos, &sin}) {
    TORCH_CHECK(table->dim() == 2 && table->size(1) == x.size(2) / 2 &&
                    table->size(0) == cos.size(0) && table->scalar_type() == at::kFloat &&
                    table->is_contiguous(),
                "rope: cos or sin is ", table->scalar_type(), " ", table->sizes(),
                ", want Float [max_position, ", x.size(2) / 2, "]");
  }
  TORCH_CHECK(positions.dim() == 1 && positions.size(0) == x.size(0) && positions.is_contiguous() &&
                  (positions.scalar_type() == at::kLong || positions.scalar_type() == at::kInt),
              "rope: positions are ", positions.scalar_type(), " ", positions.sizes(),
              ", want Long or Int [", x.size(0), "]");
}

int64_t PositionAt(const at::Tensor& positions, int64_t t) {
  return positions.scalar_type() == at::kLong ? Data<int64_t>(positions)[t]
                                              : Data<int32_t>(positions)[t];
}

}  // namespace

void RmsNorm(const at::Tensor& x, const at::Tensor& weight, float eps, const at::Tensor& y) {
  Normalize(x, nullptr, weight, eps, y);
}

void AddRmsNorm(const at::Tensor& x, const at::Tensor& residual, const at::Tensor& weight,
                float eps, const at::Tensor& y) {
  Normalize(x, &residual, weight, eps, y);
}

void ApplyRope(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin,
               const at::Tensor& positions) {
  CheckRope(x, cos, sin, positions);
  for (int64_t t = 0; t < x.size(0); ++t) {
    const int64_t position = PositionAt(positions, t);
    TORCH_CHECK(position >= 0 && position < cos.size(0), "rope: position ", position, " of ",
                cos.size(0));
  }
  const int64_t half = x.size(2) / 2;
  DispatchType(x, "rope", [&]<typename T>(T) {
    const auto kernel = ActiveVectorKernels().of<T>().rope;
    ParallelFor(x.size(0), x.size(1) * half / 4, [&](int64_t t) {
      const int64_t position = PositionAt(positions, t);
      kernel(Data<T>(x) + t * x.stride(0), x.size(1), half, Data<float>(cos) + position * half,
             Data<float>(sin) + position * half);
    });
  });
}

void SiluMul(const at::Tensor& gate_up, const at::Tensor& y) {
  const int64_t width = y.size(1);
  CheckRows(gate_up, "silu: gate_up", y.size(0), 2 * width, y.scalar_type());
  CheckRows(y, "silu: y", y.size(0), width, y.scalar_type());
  DispatchType(y, "silu", [&]<typename T>(T) {
    const auto kernel = ActiveVectorKernels().of<T>().silu_mul;
    ParallelFor(y.size(0), width / 2, [&](int64_t r) {
      const T* gate = Data<T>(gate_up) + r * gate_up.stride(0);
      kernel(gate, gate + width, width, Data<T>(y) + r * y.stride(0));
    });
  });
}

}  // namespace tenon
