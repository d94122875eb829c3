#include "server/model/rope_table.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/pow.h>

#include <algorithm>
#include <cmath>
#include <numbers>

namespace tenon {
namespace {

constexpr float kTwoPi = static_cast<float>(2 * std::numbers::pi);

// base ** (0, 2, 4, ... / dim). ATen's pow, so that the bits are those of the reference.
std::vector<float> PositionFrequencies(float base, int64_t dim) {
  at::Tensor exponents = at::empty({dim / 2}, at::TensorOptions(at::kFloat));
  for (int64_t i = 0; i < dim / 2; ++i) {
    exponents.mutable_data_ptr<float>()[i] = static_cast<float>(2 * i) / static_cast<float>(dim);
  }
  const at::Tensor powers = at::pow(at::Scalar(static_cast<double>(base)), exponents);
  const float* const data = powers.const_data_ptr<float>();
  return std::vector<float>(data, data + dim / 2);
}

// NTK-aware scaling with the length (dynamic): in fp32, since the reference's length is a tensor.
float StretchedBase(const RopeConfig& config, int64_t length) {
  const float factor = static_cast<float>(config.factor);
  const float original = static_cast<float>(config.max_position_embeddings);
  const float seq_len = static_cast<float>(std::max(length, config.max_position_embeddings));
  const double dim = static_cast<double>(config.head_dim);
  const float stretch = factor * seq_len / original - static_cast<float>(config.factor - 1.0);
  return static_cast<float>(config.theta) * std::pow(stretch, static_cast<float>(dim / (dim - 2)));
}

// Llama 3.1: long wavelengths are stretched, short ones kept, those between interpolated.
float Llama3Frequency(const RopeConfig& rope, float inv_freq) {
  const double context = static_cast<double>(rope.original_max_position_embeddings);
  const float wavelength = kTwoPi / inv_freq;
  const float factor = static_cast<float>(rope.factor);
  if (wavelength > static_cast<float>(context / rope.low_freq_factor)) {
    return inv_freq / factor;
  }
  if (wavelength < static_cast<float>(context / rope.high_freq_factor)) {
    return inv_freq;
  }
  const float smooth =
      (static_cast<float>(context) / wavelength - static_cast<float>(rope.low_freq_factor)) /
      static_cast<float>(rope.high_freq_factor - rope.low_freq_factor);
  return (1.0f - smooth) * inv_freq / factor + smooth * inv_freq;
}

// YaRN (arXiv:2309.00071): the dimension that turns `rotations` times within the original context.
double YarnDimension(const RopeConfig& config, double rotations) {
  const double context = static_cast<double>(config.original_max_position_embeddings);
  return static_cast<double>(config.head_dim) *
         std::log(context / (rotations * 2 * std::numbers::pi)) / (2 * std::log(config.theta));
}

std::vector<float> YarnFrequencies(const RopeConfig& config) {
  const RopeConfig& rope = config;
  double low = YarnDimension(config, rope.beta_fast);
  double high = YarnDimension(config, rope.beta_slow);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, static_cast<double>(config.head_dim - 1));
  if (low == high) {
    high += 0.001;
  }
  std::vector<float> freqs = PositionFrequencies(static_cast<float>(rope.theta), config.head_dim);
  for (size_t i = 0; i < freqs.size(); ++i) {
    const float ramp = std::clamp(
        (static_cast<float>(i) - static_cast<float>(low)) / static_cast<float>(high - low), 0.0f,
        1.0f);
    const float extrapolated = 1.0f - ramp;
    const float interpolation = 1.0f / (static_cast<float>(rope.factor) * freqs[i]);
    const float extrapolation = 1.0f / freqs[i];
    freqs[i] = interpolation * (1.0f - extrapolated) + extrapolation * extrapolated;
  }
  return freqs;
}

}  // namespace

std::vector<float> RopeInverseFrequencies(const RopeConfig& config, int64_t length) {
  const RopeConfig& rope = config;
  if (rope.type == RopeType::kYarn) {
    return YarnFrequencies(config);
  }
  const bool stretched = rope.type == RopeType::kDynamic && length > config.max_position_embeddings;
  const float base = stretched ? StretchedBase(config, length) : static_cast<float>(rope.theta);
  std::vector<float> freqs = PositionFrequencies(base, config.head_dim);
  for (float& freq : freqs) {
    freq = 1.0f / freq;
    if (rope.type == RopeType::kLinear) {
      freq /= static_cast<float>(rope.factor);
    } else if (rope.type == RopeType::kLlama3) {
      freq = Llama3Frequency(rope, freq);
    }
  }
  return freqs;
}

RopeTable::RopeTable(const RopeConfig& config, int64_t max_positions, at::Device device)
    : config_(config), max_positions_(max_positions) {
  const int64_t half = config.head_dim / 2;
  const std::vector<float> inv_freq = RopeInverseFrequencies(config, /*length=*/1);
  cos_ = at::empty({max_positions, half}, at::TensorOptions(at::kFloat));
  sin_ = at::empty({max_positions, half}, at::TensorOptions(at::kFloat));
  for (int64_t position = 0; position < max_positions; ++position) {
    FillRow(inv_freq, position, cos_.mutable_data_ptr<float>() + position * half,
            sin_.mutable_data_ptr<float>() + position * half);
  }
  cos_ = cos_.to(device);
  sin_ = sin_.to(device);
}

void RopeTable::FillRow(const std::vector<float>& inv_freq, int64_t position, float* cos,
                        float* sin) const {
  const float scaling = static_cast<float>(config_.attention_scaling);
  for (size_t i = 0; i < inv_freq.size(); ++i) {
    const float angle = static_cast<float>(position) * inv_freq[i];
    cos[i] = std::cos(angle) * scaling;
    sin[i] = std::sin(angle) * scaling;
  }
}

bool RopeTable::Stretches(std::span<const RopePosition> tokens) const {
  return depends_on_length() &&
         std::any_of(tokens.begin(), tokens.end(), [this](const RopePosition& token) {
           return token.length > config_.max_position_embeddings;
         });
}

RopeRows RopeTable::Select(std::span<const RopePosition> tokens) const {
  if (Stretches(tokens)) {
    return SelectStretched(tokens);
  }
  const at::Tensor positions =
      at::empty({static_cast<int64_t>(tokens.size())}, at::TensorOptions(at::kLong));
  std::transform(tokens.begin(), tokens.end(), positions.mutable_data_ptr<int64_t>(),
                 [](const RopePosition& token) { return token.position; });
  return At(positions.to(cos_.device()));
}

RopeRows RopeTable::SelectStretched(std::span<const RopePosition> tokens) const {
  const int64_t half = config_.head_dim / 2;
  const int64_t count = static_cast<int64_t>(tokens.size());
  RopeRows rows;
  rows.cos = at::empty({count, half}, at::TensorOptions(at::kFloat));
  rows.sin = at::empty({count, half}, at::TensorOptions(at::kFloat));
  rows.positions = at::arange(count, at::TensorOptions(at::kLong));
  std::vector<float> inv_freq;
  int64_t inv_freq_length = -1;  // neighbours in a prompt share theirs
  for (int64_t t = 0; t < count; ++t) {
    if (tokens[t].length != inv_freq_length) {
      inv_freq_length = tokens[t].length;
      inv_freq = RopeInverseFrequencies(config_, inv_freq_length);
    }
    FillRow(inv_freq, tokens[t].position, rows.cos.mutable_data_ptr<float>() + t * half,
            rows.sin.mutable_data_ptr<float>() + t * half);
  }
  return {rows.cos.to(cos_.device()), rows.sin.to(cos_.device()), rows.positions.to(cos_.device())};
}

}  // namespace tenon
