#include "tests/device/host_device.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>
#include <gtest/gtest.h>

namespace tenon {
namespace {

class HostDeviceTest : public testing::Test {
 protected:
  at::Tensor Range(int64_t rows, int64_t columns) {
    return at::arange(rows * columns, at::TensorOptions(at::kFloat)).reshape({rows, columns});
  }

  c10::InferenceMode mode_;
  c10::Device device_ = HostDevice();
};

TEST_F(HostDeviceTest, OperationsGiveWhatTheCpuGives) {
  const at::Tensor a = Range(3, 4), b = Range(4, 5);
  const at::Tensor product = at::matmul(a.to(device_), b.to(device_)).mul(2.0);
  EXPECT_EQ(product.device(), device_);
  EXPECT_TRUE(at::equal(product.cpu(), at::matmul(a, b).mul(2.0)));
}

TEST_F(HostDeviceTest, ViewsShareMemoryAndOutliveWhatTheyAreOf) {
  at::Tensor base = at::zeros({4, 6}, at::TensorOptions(at::kFloat).device(device_));
  const at::Tensor column = base.narrow(1, 2, 2).select(1, 0);
  column.fill_(5.0);
  EXPECT_EQ(base.sum().item<float>(), 20.0f);
  base = at::Tensor();
  EXPECT_EQ(column.sum().item<float>(), 20.0f);
}

TEST_F(HostDeviceTest, InPlaceOperationsReturnTheirTensor) {
  const at::Tensor x = at::ones({3}, at::TensorOptions(at::kFloat).device(device_));
  const at::Tensor same = x.add_(x);
  EXPECT_TRUE(same.is_same(x));
  EXPECT_EQ(x.sum().item<float>(), 6.0f);
}

TEST_F(HostDeviceTest, MixedDevicesThrow) {
  const at::Tensor x = Range(3, 4).to(device_);
  EXPECT_THROW(x.add(Range(3, 4)), c10::Error);
  EXPECT_THROW(x.add_(Range(3, 4)), c10::Error);
  EXPECT_THROW(at::cat({x, Range(3, 4)}), c10::Error);
  EXPECT_THROW(at::index_select(x, 0, at::zeros({2}, at::TensorOptions(at::kLong))), c10::Error);
}

TEST_F(HostDeviceTest, MemoryThatWasNotWrittenIsNan) {
  const at::Tensor x = at::empty({4}, at::TensorOptions(at::kFloat).device(device_));
  EXPECT_TRUE(std::isnan(x.sum().item<float>()));
}

using HostDeviceDeathTest = HostDeviceTest;

TEST_F(HostDeviceDeathTest, TouchingMemoryThroughItsPointerCrashes) {
  const at::Tensor x = Range(3, 4).to(device_);
  EXPECT_DEATH(static_cast<void>(*static_cast<volatile const float*>(x.const_data_ptr())), "");
  const HostDeviceAccess access;
  EXPECT_EQ(static_cast<const float*>(x.const_data_ptr())[5], 5.0f);
}

}  // namespace
}  // namespace tenon
