#include "server/memory_budget.h"

#include <gtest/gtest.h>

namespace tenon {
namespace {

TEST(MemoryBudgetTest, ReadsMemAvailableInBytes) {
  EXPECT_EQ(ParseMemAvailable("MemTotal:       16 kB\nMemAvailable:    1024 kB\nBuffers: 1 kB\n"),
            1024 * 1024);
}

TEST(MemoryBudgetTest, MeminfoWithoutItSaysNothing) {
  EXPECT_EQ(ParseMemAvailable(""), std::nullopt);
  EXPECT_EQ(ParseMemAvailable("MemTotal: 16 kB\n"), std::nullopt);
  EXPECT_EQ(ParseMemAvailable("MemAvailable: lots kB\n"), std::nullopt);
}

TEST(MemoryBudgetTest, CgroupLeavesWhatItHasNotUsed) {
  EXPECT_EQ(ParseCgroupRoom("1000\n", "400\n"), 600);
  EXPECT_EQ(ParseCgroupRoom("1000\n", "1400\n"), 0);
}

TEST(MemoryBudgetTest, CgroupWithoutLimitSaysNothing) {
  EXPECT_EQ(ParseCgroupRoom("max\n", "400\n"), std::nullopt);
  EXPECT_EQ(ParseCgroupRoom("", ""), std::nullopt);
}

TEST(MemoryBudgetTest, TakesHalfButNoMoreThanTheBatchCanUse) {
  EXPECT_EQ(ChooseKvCacheBytes(1000, 10'000), 500);
  EXPECT_EQ(ChooseKvCacheBytes(1000, 300), 300);
  EXPECT_EQ(ChooseKvCacheBytes(std::nullopt, 300), 300);
  EXPECT_GT(ChooseKvCacheBytes(std::nullopt, int64_t{1} << 40), 0);
}

TEST(MemoryBudgetTest, ThisMachineHasMemory) { EXPECT_GT(AvailableMemoryBytes().value_or(1), 0); }

}  // namespace
}  // namespace tenon
