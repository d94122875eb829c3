#include "adapters/residency/host_tier.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>

namespace tenon {
namespace {

std::shared_ptr<const AdapterSpec> Spec(const std::string& method) {
  auto spec = std::make_shared<AdapterSpec>();
  spec->method = method;
  return spec;
}

TEST(HostTierTest, FindsWhatWasInsertedAndCounts) {
  HostTier tier(100);
  EXPECT_EQ(tier.Find("a"), nullptr);
  tier.Insert("a", Spec("LORA"), 40);
  ASSERT_NE(tier.Find("a"), nullptr);
  EXPECT_EQ(tier.Find("a")->method, "LORA");
  EXPECT_TRUE(tier.Contains("a"));
  const HostTierStats stats = tier.stats();
  EXPECT_EQ(stats.hits, 2);
  EXPECT_EQ(stats.misses, 1);
  EXPECT_EQ(stats.num_bytes, 40);
  EXPECT_EQ(stats.num_adapters, 1);
  EXPECT_EQ(stats.budget_bytes, 100);
}

TEST(HostTierTest, LeastRecentlyUsedGoesFirst) {
  HostTier tier(100);
  tier.Insert("a", Spec("A"), 40);
  tier.Insert("b", Spec("B"), 40);
  tier.Find("a");
  tier.Insert("c", Spec("C"), 40);
  EXPECT_TRUE(tier.Contains("a"));
  EXPECT_FALSE(tier.Contains("b"));
  EXPECT_EQ(tier.stats().num_bytes, 80);
}

TEST(HostTierTest, LargeOneEvictsSeveralAndTooLargeOneIsNotKept) {
  HostTier tier(100);
  tier.Insert("a", Spec("A"), 40);
  tier.Insert("b", Spec("B"), 40);
  tier.Insert("large", Spec("L"), 90);
  EXPECT_EQ(tier.stats().num_adapters, 1);
  tier.Insert("huge", Spec("H"), 101);
  EXPECT_TRUE(tier.Contains("large"));
  EXPECT_FALSE(tier.Contains("huge"));
}

TEST(HostTierTest, UserKeepsWhatIsEvictedOrErased) {
  HostTier tier(100);
  tier.Insert("a", Spec("A"), 40);
  const std::shared_ptr<const AdapterSpec> mine = tier.Find("a");
  tier.Erase("a");
  tier.Erase("a");
  EXPECT_FALSE(tier.Contains("a"));
  EXPECT_EQ(tier.stats().num_bytes, 0);
  EXPECT_EQ(mine->method, "A");
}

TEST(HostTierTest, InsertTwiceKeepsTheFirst) {
  HostTier tier(100);
  tier.Insert("a", Spec("first"), 40);
  tier.Insert("a", Spec("second"), 40);
  EXPECT_EQ(tier.Find("a")->method, "first");
  EXPECT_EQ(tier.stats().num_bytes, 40);
}

TEST(HostTierTest, BudgetOfZeroKeepsNothing) {
  HostTier tier(0);
  tier.Insert("a", Spec("A"), 1);
  EXPECT_FALSE(tier.Contains("a"));
}

}  // namespace
}  // namespace tenon
