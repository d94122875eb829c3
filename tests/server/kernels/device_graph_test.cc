// CUDA graphs; on the host, or on a GPU.
#include "server/kernels/device_graph.h"

#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/StreamGuard.h>
#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include "adapters/kernels/device.h"
#include "server/kernels/cuda_ops.h"
#include "tests/device/test_device.h"

namespace tenon {
namespace {

class DeviceGraphTest : public testing::Test {
 protected:
  at::Tensor Zeros(at::IntArrayRef sizes) {
    return at::zeros(sizes, at::TensorOptions(at::kFloat).device(device_));
  }
  static float First(const at::Tensor& tensor) { return tensor.cpu().const_data_ptr<float>()[0]; }

  c10::InferenceMode mode_;
  at::Device device_ = KernelTestDevice().device;
  c10::StreamGuard stream_{NewStream(device_)};
};

TEST_F(DeviceGraphTest, ALaunchReadsWhatMemoryHoldsThen) {
  const at::Tensor x = Zeros({2, 2}), w = Zeros({2, 2});
  at::Tensor product = Zeros({2, 2});
  const at::Tensor capped = Zeros({2, 2});
  const auto run = [&] {
    at::mm_out(product, x, w);  // LibTorch's operation,
    capped.copy_(product);
    SoftCapCuda(capped, 1000.0f);  // and a kernel of Tenon's
  };
  w.fill_(1.0f);
  run();
  const DeviceGraph graph(device_, run);
  x.fill_(3.0f);
  EXPECT_EQ(First(product), 0.0f) << "nothing runs while it is recorded";
  graph.Launch();
  EXPECT_EQ(First(product), 6.0f);
  EXPECT_NEAR(First(capped), 6.0f, 1e-3f);
  x.fill_(-1.0f);
  graph.Launch();
  EXPECT_EQ(First(product), -2.0f);
}

TEST_F(DeviceGraphTest, WhatTakesMemoryCannotBeRecorded) {
  const at::Tensor x = Zeros({4, 4});
  EXPECT_THROW(DeviceGraph(device_, [&] { at::mm(x, x); }), c10::Error);
  // The stream is as before, and can be recorded again.
  const DeviceGraph graph(device_, [&] { x.fill_(1.0f); });
  EXPECT_EQ(First(x), 0.0f);
  graph.Launch();
  EXPECT_EQ(First(x), 1.0f);
}

TEST_F(DeviceGraphTest, WhatWaitsForTheDeviceCannotBeRecorded) {
  const at::Tensor x = Zeros({4, 4});
  EXPECT_THROW(DeviceGraph(device_, [&] { x.cpu(); }), c10::Error);
  EXPECT_EQ(First(x), 0.0f);
}

}  // namespace
}  // namespace tenon
