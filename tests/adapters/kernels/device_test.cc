#include "adapters/kernels/device.h"

#include <c10/util/Exception.h>
#include <dlfcn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

namespace tenon {
namespace {

using ::testing::HasSubstr;

bool HasDriver() { return dlopen("libcuda.so.1", RTLD_NOW) != nullptr; }

TEST(DeviceTest, NameOfNoDeviceIsRefused) {
  EXPECT_TRUE(absl::IsInvalidArgument(OpenDevice("gpu").status()));
}

TEST(DeviceTest, CpuNeedsNothing) { EXPECT_EQ(*OpenDevice("cpu"), c10::Device(c10::kCPU)); }

TEST(DeviceTest, WithoutADriverCudaSaysSoAndAutoIsTheCpu) {
  if (HasDriver()) {
    GTEST_SKIP() << "there is an NVIDIA driver";
  }
  const absl::Status status = OpenDevice("cuda:0").status();
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("no NVIDIA driver: libcuda.so.1"));
  EXPECT_EQ(*OpenDevice("auto"), c10::Device(c10::kCPU));
}

TEST(DeviceTest, KernelsThatCannotBeOpenedAreNamed) {
  const absl::Status status = OpenKernelLibrary("/nowhere/libtenon_cuda.so");
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("/nowhere/libtenon_cuda.so"));
  EXPECT_THROW(FindKernelTable("tenon_adapter_kernels_2"), c10::Error);
}

TEST(DeviceTest, VariableNamesTheKernelLibrary) {
  setenv("TENON_CUDA_LIBRARY", "/somewhere/kernels.so", 1);
  EXPECT_EQ(*FindKernelLibrary(), "/somewhere/kernels.so");
  unsetenv("TENON_CUDA_LIBRARY");
}

}  // namespace
}  // namespace tenon
