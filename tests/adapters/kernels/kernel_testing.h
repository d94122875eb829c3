// What the tests of both kernel folders share: random tensors and comparisons.
#ifndef TENON_TESTS_ADAPTERS_KERNELS_KERNEL_TESTING_H_
#define TENON_TESTS_ADAPTERS_KERNELS_KERNEL_TESTING_H_

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "adapters/kernels/cpu_isa.h"

namespace tenon {

/// The instruction sets that this machine runs, the portable one first.
inline std::vector<CpuIsa> HostIsas() {
  std::vector<CpuIsa> isas;
  for (int isa = 0; isa <= static_cast<int>(HostIsa()); ++isa) {
    isas.push_back(static_cast<CpuIsa>(isa));
  }
  return isas;
}

/// Normal variates from a fixed seed.
class RandomTensors {
 public:
  explicit RandomTensors(uint32_t seed) : engine_(seed) {}

  at::Tensor Normal(at::IntArrayRef sizes, at::ScalarType dtype, float deviation = 1.0f) {
    at::Tensor tensor = at::empty(sizes, at::TensorOptions().dtype(at::kFloat));
    std::normal_distribution<float> normal(0.0f, deviation);
    float* data = tensor.mutable_data_ptr<float>();
    for (int64_t i = 0; i < tensor.numel(); ++i) {
      data[i] = normal(engine_);
    }
    return tensor.to(dtype);
  }
  int64_t Between(int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(engine_);
  }

 private:
  std::mt19937 engine_;
};

/// Whether two tensors of one shape and dtype have the same bits.
inline bool SameBits(const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor x = a.contiguous(), y = b.contiguous();
  return x.sizes() == y.sizes() && x.scalar_type() == y.scalar_type() &&
         std::memcmp(x.const_data_ptr(), y.const_data_ptr(), x.nbytes()) == 0;
}

/// The largest |a - b| / (floor + |b|) over all elements; infinite when a NaN is on one side only.
inline double WorstError(const at::Tensor& actual, const at::Tensor& expected, double floor = 1.0) {
  EXPECT_EQ(actual.sizes(), expected.sizes());
  const at::Tensor a = actual.to(at::kDouble).contiguous();
  const at::Tensor b = expected.to(at::kDouble).contiguous();
  const double* x = a.const_data_ptr<double>();
  const double* y = b.const_data_ptr<double>();
  double worst = 0.0;
  for (int64_t i = 0; i < a.numel(); ++i) {
    const double error = std::abs(x[i] - y[i]) / (floor + std::abs(y[i]));
    worst = std::isnan(error) ? INFINITY : std::max(worst, error);
  }
  return worst;
}

/// What one rounding to the dtype may cost, relative, with a little for the order of fp32 sums.
inline double RoundingError(at::ScalarType dtype) { return dtype == at::kFloat ? 5e-6 : 1.0 / 128; }

}  // namespace tenon

#endif  // TENON_TESTS_ADAPTERS_KERNELS_KERNEL_TESTING_H_
