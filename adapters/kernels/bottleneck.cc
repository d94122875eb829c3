#include "adapters/kernels/bottleneck.h"

#include <ATen/ops/empty.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Exception.h>

#include <cmath>
#include <vector>

#include "adapters/kernels/parallel.h"
#include "adapters/kernels/tensor_data.h"

namespace tenon {
namespace {

constexpr float kNormEpsilon = 1e-5f;
// About what an element of a row costs in nanoseconds, for ParallelFor.
constexpr int64_t kActivationCost = 8;

bool IsVector(const at::Tensor& tensor, int64_t size) {
  return tensor.defined() && tensor.dim() == 1 && tensor.size(0) == size &&
         tensor.is_contiguous() && tensor.scalar_type() == at::kFloat;
}

bool Fits(const LayerNormWeights& norm, int64_t hidden) {
  return !norm.weight.defined() || (IsVector(norm.weight, hidden) && IsVector(norm.bias, hidden));
}

bool Fits(const BottleneckDelta& delta, int64_t hidden, at::ScalarType dtype) {
  return delta.down.defined() && delta.up.defined() && delta.down.in_features() == hidden &&
         delta.up.out_features() == hidden && delta.up.in_features() == delta.width() &&
         delta.down.dtype() == dtype && delta.up.dtype() == dtype &&
         IsVector(delta.down_bias, delta.width()) && IsVector(delta.up_bias, hidden) &&
         IsVector(delta.scale, hidden) &&
         (!delta.input_norm.defined() || IsVector(delta.input_norm, hidden)) &&
         Fits(delta.norm_before, hidden) && Fits(delta.norm_after, hidden);
}

void CheckOperands(const at::Tensor& residual, std::span<const BottleneckTerm> terms,
                   const at::Tensor& out) {
  TORCH_CHECK(out.dim() == 2 && residual.sizes() == out.sizes() &&
                  residual.scalar_type() == out.scalar_type() &&
                  (out.scalar_type() == at::kFloat || out.scalar_type() == at::kBFloat16) &&
                  (out.stride(1) == 1 || out.size(1) == 1) &&
                  (residual.stride(1) == 1 || residual.size(1) == 1),
              "bottleneck: residual is ", residual.scalar_type(), " ", residual.sizes(),
              ", out is ", out.scalar_type(), " ", out.sizes());
  for (const BottleneckTerm& term : terms) {
    TORCH_CHECK(term.delta != nullptr, "bottleneck: a term has no module");
    CheckBottleneck(*term.delta, out.size(1), out.scalar_type());
    TORCH_CHECK(0 <= term.begin && term.begin <= term.end && term.end <= out.size(0),
                "bottleneck: rows ", term.begin, " to ", term.end, " of ", out.size(0));
  }
}

float Activate(BottleneckActivation activation, float x) {
  switch (activation) {
    case BottleneckActivation::kIdentity:
      return x;
    case BottleneckActivation::kRelu:
      return x > 0.0f ? x : 0.0f;
    case BottleneckActivation::kLeakyRelu:
      return x > 0.0f ? x : 0.01f * x;
    case BottleneckActivation::kGelu:
      return 0.5f * x * (1.0f + std::erf(x * 0.70710678118654752f));
    case BottleneckActivation::kGeluTanh:  // arXiv:1606.08415, the approximation with tanh
      return 0.5f * x * (1.0f + std::tanh(0.79788456080286536f * (x + 0.044715f * x * x * x)));
    case BottleneckActivation::kSilu:
      return x / (1.0f + std::exp(-x));
    case BottleneckActivation::kTanh:
      return std::tanh(x);
  }
  return x;
}

// y = (x - mean) / sqrt(variance + epsilon) * weight + bias over one row; y may be x.
void NormRow(const LayerNormWeights& norm, const float* x, int64_t n, float* y) {
  const float* const weight = norm.weight.const_data_ptr<float>();
  const float* const bias = norm.bias.const_data_ptr<float>();
  double sum = 0.0, squares = 0.0;
  for (int64_t i = 0; i < n; ++i) {
    sum += x[i];
  }
  const double mean = sum / static_cast<double>(n);
  for (int64_t i = 0; i < n; ++i) {
    squares += (x[i] - mean) * (x[i] - mean);
  }
  const float factor =
      static_cast<float>(1.0 / std::sqrt(squares / static_cast<double>(n) + kNormEpsilon));
  for (int64_t i = 0; i < n; ++i) {
    y[i] = (x[i] - static_cast<float>(mean)) * factor * weight[i] + bias[i];
  }
}

// x = x / sqrt(mean(x^2) + epsilon) * weight over one row, in place.
void RmsNormRow(const at::Tensor& weight, float epsilon, int64_t n, float* x) {
  const float* const factors = weight.const_data_ptr<float>();
  double squares = 0.0;
  for (int64_t i = 0; i < n; ++i) {
    squares += static_cast<double>(x[i]) * x[i];
  }
  const float factor =
      static_cast<float>(1.0 / std::sqrt(squares / static_cast<double>(n) + epsilon));
  for (int64_t i = 0; i < n; ++i) {
    x[i] = x[i] * factor * factors[i];
  }
}

// The rows of one term, T being float or c10::BFloat16.
template <typename T>
class TermUpdate {
 public:
  TermUpdate(const BottleneckTerm& term, const at::Tensor& residual, const at::Tensor& out)
      : delta_(*term.delta),
        weight_(term.weight),
        rows_(term.end - term.begin),
        hidden_(out.size(1)),
        residual_(residual.narrow(0, term.begin, rows_)),
        out_(out.narrow(0, term.begin, rows_)) {}

  // Computes the update from `out`, which stays as it is.
  void Compute() {
    const at::TensorOptions options(out_.scalar_type());
    const at::Tensor input = at::empty({rows_, hidden_}, options);
    update_ = at::empty({rows_, hidden_}, at::TensorOptions(at::kFloat));
    ForRows(hidden_, [&](int64_t row) { ReadInput(row, Row<T>(input, row)); });
    const at::Tensor inner = at::empty({rows_, delta_.width()}, options);
    delta_.down.Multiply(input, delta_.down_bias, inner);
    ForRows(delta_.width() * kActivationCost, [&](int64_t row) {
      T* const x = Row<T>(inner, row);
      for (int64_t i = 0; i < delta_.width(); ++i) {
        x[i] = static_cast<T>(Activate(delta_.activation, static_cast<float>(x[i])));
      }
    });
    delta_.up.Multiply(inner, delta_.up_bias, input);
    ForRows(hidden_, [&](int64_t row) { Finish(row, Row<T>(input, row)); });
  }

  // out += weight * update.
  void Add() {
    ForRows(hidden_, [&](int64_t row) {
      const float* const update = Row<float>(update_, row);
      T* const out = Row<T>(out_, row);
      for (int64_t i = 0; i < hidden_; ++i) {
        out[i] = static_cast<T>(static_cast<float>(out[i]) + weight_ * update[i]);
      }
    });
  }

 private:
  template <typename E>
  static E* Row(const at::Tensor& tensor, int64_t row) {
    return Data<E>(tensor) + row * tensor.stride(0);
  }

  template <typename Function>
  void ForRows(int64_t cost, const Function& function) {
    ParallelFor(rows_, cost, function);
  }

  // u, which is left in update_, and what down reads.
  void ReadInput(int64_t row, T* input) {
    const T* const out = Row<T>(out_, row);
    const T* const residual = Row<T>(residual_, row);
    const bool reads_out = delta_.input != BottleneckInput::kResidual;
    const bool reads_residual = delta_.input != BottleneckInput::kOutput;
    float* const u = Row<float>(update_, row);
    for (int64_t i = 0; i < hidden_; ++i) {
      u[i] = (reads_out ? static_cast<float>(out[i]) : 0.0f) +
             (reads_residual ? static_cast<float>(residual[i]) : 0.0f);
    }
    if (delta_.input_norm.defined()) {
      RmsNormRow(delta_.input_norm, delta_.input_norm_eps, hidden_, u);
    }
    std::vector<float> normed(u, u + hidden_);
    if (delta_.norm_before.weight.defined()) {
      NormRow(delta_.norm_before, u, hidden_, normed.data());
    }
    for (int64_t i = 0; i < hidden_; ++i) {
      input[i] = static_cast<T>(normed[static_cast<size_t>(i)]);
    }
  }

  // r - out, given u.
  void ResidualLessOutput(int64_t row, float* u) {
    const T* const out = Row<T>(out_, row);
    const T* const residual = Row<T>(residual_, row);
    for (int64_t i = 0; i < hidden_; ++i) {
      switch (delta_.residual) {
        case BottleneckResidual::kOutput:
          u[i] = 0.0f;
          break;
        case BottleneckResidual::kInput:
          u[i] -= static_cast<float>(out[i]);
          break;
        case BottleneckResidual::kOutputPlusResidual:
          u[i] = static_cast<float>(residual[i]);
          break;
      }
    }
  }

  void Finish(int64_t row, const T* up) {
    const T* const out = Row<T>(out_, row);
    const T* const residual = Row<T>(residual_, row);
    const float* const scale = delta_.scale.const_data_ptr<float>();
    float* const update = Row<float>(update_, row);  // u, then r - out, then the update
    ResidualLessOutput(row, update);
    std::vector<float> v(static_cast<size_t>(hidden_));
    for (int64_t i = 0; i < hidden_; ++i) {
      v[static_cast<size_t>(i)] = scale[i] * static_cast<float>(up[i]);
    }
    const bool normed = delta_.norm_after.weight.defined();
    const bool adds_first = normed && delta_.adds_residual_before_norm;
    for (int64_t i = 0; adds_first && i < hidden_; ++i) {
      v[static_cast<size_t>(i)] += update[i] + static_cast<float>(out[i]);
      update[i] = -static_cast<float>(out[i]);
    }
    if (normed) {
      NormRow(delta_.norm_after, v.data(), hidden_, v.data());
    }
    for (int64_t i = 0; i < hidden_; ++i) {
      update[i] += v[static_cast<size_t>(i)];
      update[i] -= delta_.drops_stream ? static_cast<float>(residual[i]) : 0.0f;
    }
  }

  const BottleneckDelta& delta_;
  float weight_;
  int64_t rows_, hidden_;
  at::Tensor residual_, out_;
  at::Tensor update_;  // [rows, hidden] fp32
};

template <typename T>
void Apply(const at::Tensor& residual, std::span<const BottleneckTerm> terms,
           const at::Tensor& out) {
  std::vector<TermUpdate<T>> updates;
  for (const BottleneckTerm& term : terms) {
    if (term.end > term.begin) {
      updates.emplace_back(term, residual, out).Compute();
    }
  }
  for (TermUpdate<T>& update : updates) {
    update.Add();
  }
}

}  // namespace

BottleneckDelta BottleneckDelta::OnDevice(at::Device device) const {
  BottleneckDelta moved = *this;
  moved.down = down.OnDevice(device);
  moved.up = up.OnDevice(device);
  for (at::Tensor* tensor : {&moved.down_bias, &moved.up_bias, &moved.scale, &moved.input_norm,
                             &moved.norm_before.weight, &moved.norm_before.bias,
                             &moved.norm_after.weight, &moved.norm_after.bias}) {
    *tensor = tensor->defined() ? tensor->to(device) : *tensor;
  }
  return moved;
}

int64_t BottleneckDelta::nbytes() const {
  int64_t total = down.nbytes() + up.nbytes();
  for (const at::Tensor* tensor : {&down_bias, &up_bias, &scale, &input_norm, &norm_before.weight,
                                   &norm_before.bias, &norm_after.weight, &norm_after.bias}) {
    total += tensor->defined() ? static_cast<int64_t>(tensor->nbytes()) : 0;
  }
  return total;
}

void CheckBottleneck(const BottleneckDelta& delta, int64_t hidden, at::ScalarType dtype) {
  TORCH_CHECK(Fits(delta, hidden, dtype), "bottleneck: a module does not fit rows of ", hidden,
              " elements of ", dtype);
}

void ApplyBottleneck(const at::Tensor& residual, std::span<const BottleneckTerm> terms,
                     const at::Tensor& out) {
  CheckOperands(residual, terms, out);
  if (out.scalar_type() == at::kFloat) {
    Apply<float>(residual, terms, out);
  } else {
    Apply<c10::BFloat16>(residual, terms, out);
  }
}

}  // namespace tenon
