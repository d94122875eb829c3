#include "adapters/kernels/device_tables.h"

#include <ATen/core/Tensor.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <numeric>
#include <vector>

#include "tests/device/test_device.h"

namespace tenon {
namespace {

class DeviceTablesTest : public testing::Test {
 protected:
  std::vector<int64_t> Read(DeviceTable<int64_t> table) {
    const at::Tensor host = tables_.Indices(table).cpu();
    const int64_t* const data = host.const_data_ptr<int64_t>();
    return std::vector<int64_t>(data, data + host.numel());
  }

  c10::InferenceMode mode_;
  DeviceTables tables_{KernelTestDevice().device};
};

TEST_F(DeviceTablesTest, TablesAreReadAsTheyWereWritten) {
  const std::vector<int64_t> first = {7, -1, 5}, second = {9};
  const std::vector<int32_t> between = {1, 2, 3};
  const DeviceTable<int64_t> a = tables_.Add<int64_t>(first);
  const DeviceTable<int32_t> b = tables_.Add<int32_t>(between);
  const DeviceTable<int64_t> c = tables_.Add<int64_t>(second), none = tables_.Add<int64_t>({});
  tables_.Upload();
  EXPECT_EQ(Read(a), first);
  EXPECT_EQ(Read(c), second);
  EXPECT_TRUE(Read(none).empty());
  EXPECT_EQ(reinterpret_cast<uintptr_t>(tables_.Data(b)) % 16, 0u);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(tables_.Data(c)) % 16, 0u);
}

TEST_F(DeviceTablesTest, AddressesStayAsLongAsTheMemoryIsEnough) {
  tables_.Reserve(4096);
  const int64_t* address = nullptr;
  for (const size_t count : {1, 20, 3}) {
    std::vector<int64_t> entries(count);
    std::iota(entries.begin(), entries.end(), 100);
    tables_.Clear();
    tables_.Add<int64_t>(entries, /*capacity=*/20);
    const DeviceTable<int64_t> behind = tables_.Add<int64_t>(entries);
    tables_.Upload();
    EXPECT_EQ(Read(behind), entries);
    address = address == nullptr ? tables_.Data(behind) : address;
    EXPECT_EQ(tables_.Data(behind), address) << count;
  }
}

TEST_F(DeviceTablesTest, MoreThanWasReservedFindsRoom) {
  tables_.Reserve(64);
  const std::vector<int64_t> many(1000, 3);
  const DeviceTable<int64_t> table = tables_.Add<int64_t>(many);
  tables_.Upload();
  EXPECT_EQ(Read(table), many);
  EXPECT_GE(tables_.reserved(), 8000u);
}

TEST_F(DeviceTablesTest, RoomThatIsNotUsedIsZero) {
  tables_.Add<int64_t>(std::vector<int64_t>(4, -1));
  tables_.Upload();
  tables_.Clear();
  const DeviceTable<int64_t> table = tables_.Add<int64_t>(std::vector<int64_t>{5}, 4);
  tables_.Upload();
  EXPECT_EQ(Read({table.begin, 4}), (std::vector<int64_t>{5, 0, 0, 0}));
}

}  // namespace
}  // namespace tenon
