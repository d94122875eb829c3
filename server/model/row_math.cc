#include "server/model/row_math.h"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>

namespace tenon {
namespace {

constexpr size_t kLanes = 8;

// exp(x) for x <= 0: 2^n * exp(r), |r| <= ln(2) / 2, the polynomial of Cephes' expf (Moshier,
// "Methods and Programs for Mathematical Functions"). No branch, so that a loop of it vectorizes.
inline float Exp(float x) {
  constexpr float kLog2E = 1.44269504088896341f;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  constexpr float kLn2High = 0.693359375f;
  constexpr float kLn2Low = -2.12194440e-4f;
  constexpr float kSmallest = -87.0f;
  x = x < kSmallest ? kSmallest : x;
  const float n = (x * kLog2E + kRound) - kRound;
  const float r = (x - n * kLn2High) - n * kLn2Low;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  return p * std::bit_cast<float>((static_cast<int32_t>(n) + 127) << 23);
}

}  // namespace

bool AllBelowInfinity(std::span<const float> values) {
  int bad = 0;
  for (const float value : values) {
    bad |= value <= std::numeric_limits<float>::max() ? 0 : 1;
  }
  return bad == 0;
}

float Largest(std::span<const float> values) {
  float lanes[kLanes];
  std::fill_n(lanes, kLanes, values[0]);
  size_t i = 0;
  for (; i + kLanes <= values.size(); i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) {
      lanes[lane] = values[i + lane] > lanes[lane] ? values[i + lane] : lanes[lane];
    }
  }
  float largest = *std::max_element(lanes, lanes + kLanes);
  for (; i < values.size(); ++i) {
    largest = std::max(largest, values[i]);
  }
  return largest;
}

void ExpShifted(std::span<const float> values, float shift, std::span<float> out) {
  const float* const from = values.data();
  float* const to = out.data();
  for (size_t i = 0; i < values.size(); ++i) {
    to[i] = Exp(from[i] - shift);
  }
}

double Sum(std::span<const float> values) {
  double lanes[kLanes] = {};
  size_t i = 0;
  for (; i + kLanes <= values.size(); i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) {
      lanes[lane] += values[i + lane];
    }
  }
  double sum = 0;
  for (const double lane : lanes) {
    sum += lane;
  }
  for (; i < values.size(); ++i) {
    sum += values[i];
  }
  return sum;
}

}  // namespace tenon
