#include "adapters/registry/adapter_name.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"

namespace tenon {
namespace {

AdapterPointers Pointers(std::vector<SplitArm> split) {
  AdapterPointers pointers;
  pointers.aliases = {{"canary", 2}, {"latest", 1}, {"next", 3}};
  pointers.split = std::move(split);
  return pointers;
}

TEST(ValidateSplitTest, AcceptsUpToTheWhole) {
  EXPECT_TRUE(ValidateSplit("arms", {}).ok());
  EXPECT_TRUE(ValidateSplit("arms", {{"canary", 1}}).ok());
  EXPECT_TRUE(ValidateSplit("arms", {{"canary", 4000}, {"next", 6000}}).ok());
}

TEST(ValidateSplitTest, RefusesNamingTheArm) {
  const struct {
    std::vector<SplitArm> split;
    const char* field;
  } kCases[] = {
      {{{"canary", 0}}, "arms[0].percent"},
      {{{"canary", -5}}, "arms[0].percent"},
      {{{"canary", 10'001}}, "arms[0].percent"},
      {{{"canary", 6000}, {"next", 4001}}, "arms"},
      {{{"canary", 1}, {"canary", 1}}, "arms[1].alias"},
      {{{"canary", 1}, {"latest", 1}}, "arms[1].alias"},
      {{{"7", 1}}, "arms[0].alias"},
      {std::vector<SplitArm>(9, {"a", 1}), "arms"},
  };
  for (const auto& test : kCases) {
    const absl::Status status = ValidateSplit("arms", test.split);
    ASSERT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_EQ(GetErrorDetail(status)->subject, test.field) << status;
  }
}

// The very numbers: callers keep their side over releases and replicas.
TEST(RoutingPointTest, IsTheSameForEver) {
  EXPECT_EQ(RoutingPoint("acme", "fr", "user-1"), 3317);
  EXPECT_EQ(RoutingPoint("acme", "fr", "user-2"), 8209);
  EXPECT_EQ(RoutingPoint("acme", "de", "user-1"), 466);
  EXPECT_EQ(RoutingPoint("acme", "fr", ""), 2167);
}

TEST(RoutingPointTest, PartsDoNotRunIntoEachOther) {
  EXPECT_NE(RoutingPoint("ab", "c", "d"), RoutingPoint("a", "bc", "d"));
  EXPECT_NE(RoutingPoint("a", "b", "cd"), RoutingPoint("a", "bc", "d"));
}

TEST(RoutingPointTest, SharesComeOutAsSet) {
  constexpr int kKeys = 20'000;
  std::vector<int> tenths(10);
  for (int i = 0; i < kKeys; ++i) {
    const int32_t point = RoutingPoint("acme", "fr", absl::StrCat("session-", i));
    ASSERT_GE(point, 0);
    ASSERT_LT(point, kSplitWhole);
    ++tenths[point / 1000];
  }
  for (const int count : tenths) {
    EXPECT_NEAR(count, kKeys / 10, 200);  // 4.7 standard deviations
  }
}

TEST(AliasAtTest, ArmsFollowEachOtherAndLatestHasTheRest) {
  const AdapterPointers pointers = Pointers({{"canary", 500}, {"next", 1500}});
  EXPECT_EQ(AliasAt(pointers, 0), "canary");
  EXPECT_EQ(AliasAt(pointers, 499), "canary");
  EXPECT_EQ(AliasAt(pointers, 500), "next");
  EXPECT_EQ(AliasAt(pointers, 1999), "next");
  EXPECT_EQ(AliasAt(pointers, 2000), "latest");
  EXPECT_EQ(AliasAt(pointers, 9999), "latest");
}

TEST(AliasAtTest, RaisingTheFirstShareMovesNobodyAway) {
  for (int32_t point = 0; point < kSplitWhole; point += 7) {
    if (AliasAt(Pointers({{"canary", 500}}), point) == "canary") {
      EXPECT_EQ(AliasAt(Pointers({{"canary", 2000}}), point), "canary");
    }
  }
}

TEST(AliasAtTest, ArmThatPointsNowhereCountsAsLatest) {
  EXPECT_EQ(AliasAt(Pointers({{"gone", 10'000}}), 5), "latest");
}

}  // namespace
}  // namespace tenon
