#include "adapters/kernels/bottleneck.h"

#include <ATen/ops/empty.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Exception.h>

#include <cmath>
#include <vector>

#include "adapters/kernels/parallel.h"

namespace tenon {
namespace {

constexpr float kNormEpsilon = 1e-5f;
// About what an element of a row costs in nanoseconds, for ParallelFor.
constexpr int64_t kActivationCost = 8;
constexpr int64_t kElementCost = 1;

bool IsVector(const at::Tensor& tensor, int64_t size) {
  return tensor.defined() && tensor.dim() == 1 && tensor.size(0) == size &&
         tensor.is_contiguous() && tensor.scalar_type() == at::kFloat;
}

bool Fits(const LayerNormWeights& norm, int64_t hidden) {
  return !norm.weight.defined() || (IsVector(norm.weight, hidden) && IsVector(norm.bias, hidden));
}

bool Fits(const BottleneckDelta& delta, const at::Tensor& out) {
  const int64_t hidden = out.size(1);
  return delta.down.defined() && delta.up.defined() && delta.down.in_features() == hidden &&
         delta.up.out_features() == hidden && delta.up.in_features() == delta.width() &&
         delta.down.dtype() == out.scalar_type() && delta.up.dtype() == out.scalar_type() &&
         IsVector(delta.down_bias, delta.width()) && IsVector(delta.up_bias, hidden) &&
         IsVector(delta.scale, hidden) && Fits(delta.norm_before, hidden) &&
         Fits(delta.norm_after, hidden);
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
    TORCH_CHECK(term.delta != nullptr && Fits(*term.delta, out),
                "bottleneck: a module does not fit out, ", out.scalar_type(), " ", out.sizes());
    TORCH_CHECK(0 <= term.begin && term.begin <= term.end && term.end <= out.size(0),
                "bottleneck: rows ", term.begin, " to ", term.end, " of ", out.size(0));
  }
}

float Activate(Activation activation, float x) {
  switch (activation) {
    case Activation::kIdentity:
      return x;
    case Activation::kRelu:
      return x > 0.0f ? x : 0.0f;
    case Activation::kGelu:
      return 0.5f * x * (1.0f + std::erf(x * 0.70710678118654752f));
    case Activation::kGeluTanh:  // arXiv:1606.08415, the approximation with tanh
      return 0.5f * x * (1.0f + std::tanh(0.79788456080286536f * (x + 0.044715f * x * x * x)));
    case Activation::kSilu:
      return x / (1.0f + std::exp(-x));
    case Activation::kTanh:
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

  // Computes u from `out`, which stays as it is.
  void Compute() {
    const at::TensorOptions options(out_.scalar_type());
    const at::Tensor input = at::empty({rows_, hidden_}, options);
    ForRows(hidden_ * kElementCost, [&](int64_t row) { ReadInput(row, Row(input, row)); });
    const at::Tensor width = at::empty({rows_, delta_.width()}, options);
    delta_.down.Multiply(input, delta_.down_bias, width);
    ForRows(delta_.width() * kActivationCost, [&](int64_t row) {
      T* const x = Row(width, row);
      for (int64_t i = 0; i < delta_.width(); ++i) {
        x[i] = static_cast<T>(Activate(delta_.activation, static_cast<float>(x[i])));
      }
    });
    up_ = at::empty({rows_, hidden_}, options);
    delta_.up.Multiply(width, delta_.up_bias, up_);
    update_ = at::empty({rows_, hidden_}, at::TensorOptions(at::kFloat));
    ForRows(hidden_ * kElementCost, [&](int64_t row) { Finish(row); });
  }

  // out += weight * update.
  void Add() {
    ForRows(hidden_ * kElementCost, [&](int64_t row) {
      const float* const update = update_.const_data_ptr<float>() + row * hidden_;
      T* const out = Row(out_, row);
      for (int64_t i = 0; i < hidden_; ++i) {
        out[i] = static_cast<T>(static_cast<float>(out[i]) + weight_ * update[i]);
      }
    });
  }

 private:
  static T* Row(const at::Tensor& tensor, int64_t row) {
    return static_cast<T*>(tensor.mutable_data_ptr()) + row * tensor.stride(0);
  }

  template <typename Function>
  void ForRows(int64_t cost, const Function& function) {
    ParallelFor(rows_, cost, function);
  }

  void ReadInput(int64_t row, T* input) {
    const T* const out = Row(out_, row);
    const T* const residual = Row(residual_, row);
    const bool reads_out = delta_.input != BottleneckInput::kResidual;
    const bool reads_residual = delta_.input != BottleneckInput::kOutput;
    std::vector<float> wide(static_cast<size_t>(hidden_));
    for (int64_t i = 0; i < hidden_; ++i) {
      wide[static_cast<size_t>(i)] = (reads_out ? static_cast<float>(out[i]) : 0.0f) +
                                     (reads_residual ? static_cast<float>(residual[i]) : 0.0f);
    }
    if (delta_.norm_before.weight.defined()) {
      NormRow(delta_.norm_before, wide.data(), hidden_, wide.data());
    }
    for (int64_t i = 0; i < hidden_; ++i) {
      input[i] = static_cast<T>(wide[static_cast<size_t>(i)]);
    }
  }

  void Finish(int64_t row) {
    const T* const up = Row(up_, row);
    const T* const out = Row(out_, row);
    const T* const residual = Row(residual_, row);
    const float* const scale = delta_.scale.const_data_ptr<float>();
    float* const update = update_.mutable_data_ptr<float>() + row * hidden_;
    const auto add = [&](float out_factor, float residual_factor) {
      for (int64_t i = 0; i < hidden_; ++i) {
        update[i] += out_factor * static_cast<float>(out[i]) +
                     residual_factor * static_cast<float>(residual[i]);
      }
    };
    for (int64_t i = 0; i < hidden_; ++i) {
      update[i] = scale[i] * static_cast<float>(up[i]);
    }
    if (delta_.norm_after.weight.defined()) {
      add(delta_.out_in_norm, delta_.residual_in_norm);
      NormRow(delta_.norm_after, update, hidden_, update);
    }
    if (delta_.out_factor != 0.0f || delta_.residual_factor != 0.0f) {
      add(delta_.out_factor, delta_.residual_factor);
    }
  }

  const BottleneckDelta& delta_;
  float weight_;
  int64_t rows_, hidden_;
  at::Tensor residual_, out_;
  at::Tensor up_;      // [rows, hidden]
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

int64_t BottleneckDelta::nbytes() const {
  int64_t total = down.nbytes() + up.nbytes();
  for (const at::Tensor* tensor : {&down_bias, &up_bias, &scale, &norm_before.weight,
                                   &norm_before.bias, &norm_after.weight, &norm_after.bias}) {
    total += tensor->defined() ? static_cast<int64_t>(tensor->nbytes()) : 0;
  }
  return total;
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
