// Random bottleneck modules, for the tests of the CPU's and of the device's kernels.
#ifndef TENON_TESTS_ADAPTERS_KERNELS_BOTTLENECK_TESTING_H_
#define TENON_TESTS_ADAPTERS_KERNELS_BOTTLENECK_TESTING_H_

#include <cstdint>

#include "adapters/kernels/bottleneck.h"
#include "tests/adapters/kernels/kernel_testing.h"

namespace tenon {

class RandomBottlenecks {
 public:
  explicit RandomBottlenecks(RandomTensors& random) : random_(random) {}

  BottleneckDelta Plain(int64_t hidden, int64_t width, at::ScalarType dtype) {
    BottleneckDelta delta;
    const at::Tensor down = random_.Normal({width, hidden}, dtype, 0.2f);
    const at::Tensor up = random_.Normal({hidden, width}, dtype, 0.2f);
    delta.down = *PackedMatrix::Pack({&down, 1});
    delta.up = *PackedMatrix::Pack({&up, 1});
    delta.down_bias = random_.Normal({width}, at::kFloat, 0.5f);
    delta.up_bias = random_.Normal({hidden}, at::kFloat, 0.5f);
    delta.scale = random_.Normal({hidden}, at::kFloat);
    return delta;
  }

  /// One of all combinations of switches.
  BottleneckDelta Variant(int64_t hidden, int64_t width, at::ScalarType dtype) {
    BottleneckDelta delta = Plain(hidden, width, dtype);
    delta.activation = static_cast<BottleneckActivation>(random_.Between(0, kNumActivations - 1));
    delta.input = static_cast<BottleneckInput>(random_.Between(0, 2));
    delta.residual = static_cast<BottleneckResidual>(random_.Between(0, 2));
    delta.adds_residual_before_norm = Flip();
    delta.drops_stream = Flip();
    delta.norm_before = Flip() ? Norm(hidden) : LayerNormWeights{};
    delta.norm_after = Flip() ? Norm(hidden) : LayerNormWeights{};
    if (random_.Between(0, 2) == 0) {
      delta.input_norm = random_.Normal({hidden}, at::kFloat);
    }
    return delta;
  }

 private:
  static constexpr int kNumActivations = 7;

  bool Flip() { return random_.Between(0, 1) == 1; }
  LayerNormWeights Norm(int64_t hidden) {
    return {random_.Normal({hidden}, at::kFloat), random_.Normal({hidden}, at::kFloat)};
  }

  RandomTensors& random_;
};

}  // namespace tenon

#endif  // TENON_TESTS_ADAPTERS_KERNELS_BOTTLENECK_TESTING_H_
