#include "adapters/base/device_name.h"

#include <gtest/gtest.h>

#include "absl/strings/match.h"

namespace tenon {
namespace {

using Kind = DeviceName::Kind;

TEST(DeviceNameTest, NamesAreParsed) {
  EXPECT_EQ(ParseDeviceName("auto")->kind, Kind::kAuto);
  EXPECT_EQ(ParseDeviceName("cpu")->kind, Kind::kCpu);
  EXPECT_EQ(ParseDeviceName("cuda")->kind, Kind::kCuda);
  EXPECT_EQ(ParseDeviceName("cuda")->index, 0);
  EXPECT_EQ(ParseDeviceName("cuda:127")->kind, Kind::kCuda);
  EXPECT_EQ(ParseDeviceName("cuda:127")->index, 127);
}

TEST(DeviceNameTest, AnythingElseIsNamedInTheError) {
  for (const char* const bad : {"", "gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:128", "cpu:0"}) {
    const absl::Status status = ParseDeviceName(bad).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << bad;
    EXPECT_TRUE(absl::StrContains(status.message(), bad)) << status;
  }
}

}  // namespace
}  // namespace tenon
