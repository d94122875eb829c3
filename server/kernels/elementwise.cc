// Rows of norm, rotary embedding and activation over threads.
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include "adapters/kernels/gemm_kernels.h"
#include "adapters/kernels/parallel.h"
#include "adapters/kernels/tensor_data.h"
#include "server/kernels/activation.h"
#include "server/kernels/norm.h"
#include "server/kernels/rope.h"
#include "server/kernels/vector_kernels.h"

namespace tenon {
namespace {

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

void CheckNorm(const Norm& norm, int64_t width) {
  TORCH_CHECK(norm.weight.dim() == 1 && norm.weight.size(0) == width &&
                  norm.weight.scalar_type() == at::kFloat && norm.weight.is_contiguous(),
              "norm: weight is ", norm.weight.scalar_type(), " ", norm.weight.sizes(),
              ", want Float [", width, "]");
  TORCH_CHECK(norm.bias.defined() == (norm.kind == NormKind::kLayer) &&
                  (!norm.bias.defined() ||
                   (norm.bias.sizes() == norm.weight.sizes() &&
                    norm.bias.scalar_type() == at::kFloat && norm.bias.is_contiguous())),
              "norm: the bias does not fit the weight");
}

template <typename T>
auto NormKernel(NormKind kind) {
  const VectorKernelsOf<T>& kernels = ActiveVectorKernels().of<T>();
  switch (kind) {
    case NormKind::kRms:
      return kernels.rms_norm;
    case NormKind::kRmsFromOne:
      return kernels.rms_norm_from_one;
    case NormKind::kLayer:
      return kernels.layer_norm;
  }
  return kernels.rms_norm;
}

template <typename T>
NormRow<T> NormRowOf(const Norm& norm) {
  NormRow<T> row;
  row.weight = Data<float>(norm.weight);
  row.bias = norm.bias.defined() ? Data<float>(norm.bias) : nullptr;
  row.width = norm.weight.numel();
  row.eps = norm.eps;
  return row;
}

// The norm of each row, after adding x to the residual when there is one.
void NormalizeRows(const at::Tensor& x, const at::Tensor* residual, const Norm& norm,
                   const at::Tensor& y) {
  const at::ScalarType dtype = x.scalar_type();
  CheckNorm(norm, x.size(1));
  CheckRows(x, "norm: x", x.size(0), x.size(1), dtype);
  CheckRows(y, "norm: y", x.size(0), x.size(1), dtype);
  if (residual != nullptr) {
    CheckRows(*residual, "norm: residual", x.size(0), x.size(1), dtype);
  }
  DispatchType(x, "norm", [&]<typename T>(T) {
    const auto kernel = NormKernel<T>(norm.kind);
    ParallelFor(x.size(0), x.size(1), [&](int64_t r) {
      NormRow<T> row = NormRowOf<T>(norm);
      row.x = Data<T>(x) + r * x.stride(0);
      row.residual = residual != nullptr ? Data<T>(*residual) + r * residual->stride(0) : nullptr;
      row.y = Data<T>(y) + r * y.stride(0);
      kernel(row);
    });
  });
}

// [T, heads, head_dim], each token's part contiguous.
void CheckHeads(const at::Tensor& x, const char* name) {
  TORCH_CHECK(x.dim() == 3 && (x.stride(2) == 1 || x.size(2) == 1) &&
                  (x.stride(1) == x.size(2) || x.size(1) == 1),
              name, ": x is ", x.sizes(), " with strides ", x.strides(),
              ", want [T, heads, head_dim], contiguous within a token");
}

void CheckRope(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin,
               const at::Tensor& positions) {
  CheckHeads(x, "rope");
  TORCH_CHECK(x.size(2) % 2 == 0, "rope: head_dim is ", x.size(2), ", want an even number");
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

template <typename T>
auto GateKernel(Activation activation) {
  const VectorKernelsOf<T>& kernels = ActiveVectorKernels().of<T>();
  return activation == Activation::kSilu ? kernels.silu : kernels.gelu_tanh;
}

}  // namespace

Norm Norm::Make(NormKind kind, float eps, const at::Tensor& stored_weight,
                const at::Tensor& stored_bias) {
  Norm norm;
  norm.kind = kind;
  norm.eps = eps;
  const at::Tensor weight = stored_weight.to(at::kFloat);
  norm.weight = kind == NormKind::kRmsFromOne ? weight + 1.0 : weight;
  if (kind == NormKind::kLayer) {
    norm.bias = stored_bias.to(at::kFloat);
  }
  return norm;
}

int64_t Norm::nbytes() const {
  return static_cast<int64_t>((weight.defined() ? weight.nbytes() : 0) +
                              (bias.defined() ? bias.nbytes() : 0));
}

void Normalize(const at::Tensor& x, const Norm& norm, const at::Tensor& y) {
  NormalizeRows(x, nullptr, norm, y);
}

void AddNormalize(const at::Tensor& x, const at::Tensor& residual, const Norm& norm,
                  const at::Tensor& y) {
  NormalizeRows(x, &residual, norm, y);
}

void NormalizeHeads(const at::Tensor& x, const Norm& norm) {
  CheckHeads(x, "norm");
  CheckNorm(norm, x.size(2));
  DispatchType(x, "norm", [&]<typename T>(T) {
    const auto kernel = NormKernel<T>(norm.kind);
    ParallelFor(x.size(0), x.size(1) * x.size(2) / 4, [&](int64_t t) {
      NormRow<T> row = NormRowOf<T>(norm);
      for (int64_t h = 0; h < x.size(1); ++h) {
        row.y = Data<T>(x) + t * x.stride(0) + h * x.size(2);
        row.x = row.y;
        kernel(row);
      }
    });
  });
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

void Gate(const at::Tensor& gate_up, Activation activation, const at::Tensor& y) {
  const int64_t width = y.size(1);
  CheckRows(gate_up, "gate: gate_up", y.size(0), 2 * width, y.scalar_type());
  CheckRows(y, "gate: y", y.size(0), width, y.scalar_type());
  DispatchType(y, "gate", [&]<typename T>(T) {
    const auto kernel = GateKernel<T>(activation);
    ParallelFor(y.size(0), width / 2, [&](int64_t r) {
      const T* gate = Data<T>(gate_up) + r * gate_up.stride(0);
      kernel(gate, gate + width, width, Data<T>(y) + r * y.stride(0));
    });
  });
}

void Activate(const at::Tensor& x, Activation activation, const at::Tensor& y) {
  CheckRows(x, "activation: x", y.size(0), y.size(1), y.scalar_type());
  CheckRows(y, "activation: y", y.size(0), y.size(1), y.scalar_type());
  DispatchType(y, "activation", [&]<typename T>(T) {
    const auto kernel = GateKernel<T>(activation);
    ParallelFor(y.size(0), y.size(1) / 2, [&](int64_t r) {
      kernel(Data<T>(x) + r * x.stride(0), nullptr, y.size(1), Data<T>(y) + r * y.stride(0));
    });
  });
}

at::Tensor ToFloat(const at::Tensor& x) {
  if (x.scalar_type() == at::kFloat) {
    return x;
  }
  TORCH_CHECK(x.scalar_type() == at::kBFloat16 && x.dim() == 2 && x.is_contiguous(),
              "to float: x is ", x.scalar_type(), " ", x.sizes());
  const at::Tensor wide = at::empty(x.sizes(), x.options().dtype(at::kFloat));
  const int64_t columns = x.size(1);
  ParallelFor(x.size(0), columns / 8, [&](int64_t r) {
    ActiveGemmKernels().widen(Data<uint16_t>(x) + r * columns, columns,
                              Data<float>(wide) + r * columns);
  });
  return wide;
}

void SoftCap(const at::Tensor& x, float cap) {
  CheckRows(x, "soft-cap: x", x.size(0), x.size(1), x.scalar_type());
  TORCH_CHECK(cap > 0, "soft-cap: cap is ", cap);
  DispatchType(x, "soft-cap", [&]<typename T>(T) {
    const auto kernel = ActiveVectorKernels().of<T>().soft_cap;
    ParallelFor(x.size(0), x.size(1) / 2,
                [&](int64_t r) { kernel(Data<T>(x) + r * x.stride(0), x.size(1), cap); });
  });
}

}  // namespace tenon
