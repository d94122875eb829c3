#include "adapters/residency/merge_policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace tenon {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class MergePolicyTest : public testing::Test {
 protected:
  // `seconds` of traffic, 100 tokens each, of which `hot` for "hot" and the rest for the base.
  void Traffic(int seconds, int64_t hot) {
    for (int i = 0; i < seconds; ++i) {
      now_ += absl::Seconds(1);
      policy_.Count("hot", hot, now_);
      policy_.Count("", 100 - hot, now_);
    }
  }
  MergePolicy::Advice Advise(const std::vector<std::string>& merged = {}) {
    return policy_.Advise(merged, now_);
  }

  absl::Time now_ = absl::FromUnixSeconds(1'000);
  MergePolicy policy_{MergePolicyOptions{}};
};

TEST_F(MergePolicyTest, HotSelectionIsMergedWhenTheWindowIsFull) {
  Traffic(9, 90);
  EXPECT_EQ(Advise().merge, std::nullopt) << "nine seconds of ten";
  Traffic(2, 90);
  EXPECT_EQ(Advise().merge, "hot");
  EXPECT_DOUBLE_EQ(policy_.Share("hot"), 0.9);
}

TEST_F(MergePolicyTest, WhatIsMergedIsNotAdvisedAgain) {
  Traffic(12, 90);
  const MergePolicy::Advice advice = Advise({"hot"});
  EXPECT_EQ(advice.merge, std::nullopt);
  EXPECT_THAT(advice.unmerge, IsEmpty());
}

TEST_F(MergePolicyTest, BaseIsNeverMerged) {
  Traffic(12, 5);
  EXPECT_EQ(Advise().merge, std::nullopt);
}

TEST_F(MergePolicyTest, SharesBetweenTheBoundsChangeNothing) {
  Traffic(20, 45);
  EXPECT_EQ(Advise().merge, std::nullopt);
  EXPECT_THAT(Advise({"hot"}).unmerge, IsEmpty());
}

TEST_F(MergePolicyTest, FallenShareIsUnmerged) {
  Traffic(20, 90);
  Traffic(5, 0);
  EXPECT_THAT(Advise({"hot"}).unmerge, IsEmpty()) << "half of the window is still hot";
  Traffic(3, 0);
  EXPECT_THAT(Advise({"hot"}).unmerge, ElementsAre("hot"));
}

TEST_F(MergePolicyTest, IdleServerKeepsWhatItHas) {
  Traffic(20, 90);
  now_ += absl::Hours(1);
  const MergePolicy::Advice advice = Advise({"hot"});
  EXPECT_THAT(advice.unmerge, IsEmpty());
  EXPECT_EQ(policy_.num_tokens(), 0);
}

TEST_F(MergePolicyTest, WindowFillsAnewAfterAGap) {
  Traffic(20, 90);
  now_ += absl::Minutes(1);
  Traffic(5, 100);
  EXPECT_EQ(Advise().merge, std::nullopt);
  Traffic(6, 100);
  EXPECT_EQ(Advise().merge, "hot");
}

TEST_F(MergePolicyTest, ClockThatJumpsBackStopsNothing) {
  Traffic(20, 90);
  now_ -= absl::Hours(1);
  Traffic(1, 90);
  EXPECT_EQ(Advise().merge, "hot");
  EXPECT_GT(policy_.num_tokens(), 0);
}

// Against sums over all that was ever counted.
TEST_F(MergePolicyTest, SharesAreThoseOfTheWindow) {
  std::mt19937 random(7);
  struct Event {
    int64_t tenth;
    std::string key;
    int64_t tokens;
  };
  std::vector<Event> events;
  int64_t tenth = 0;
  for (int i = 0; i < 2000; ++i) {
    tenth += static_cast<int64_t>(random() % 4 == 0 ? random() % 15 : 0);
    Event event{tenth, absl::StrCat("key-", random() % 5), static_cast<int64_t>(random() % 50)};
    policy_.Count(event.key, event.tokens, absl::UnixEpoch() + tenth * absl::Milliseconds(100));
    events.push_back(std::move(event));
    int64_t all = 0, mine = 0;
    for (const Event& past : events) {
      if (past.tenth / 10 > tenth / 10 - 10) {
        all += past.tokens;
        mine += past.key == "key-2" ? past.tokens : 0;
      }
    }
    ASSERT_EQ(policy_.num_tokens(), all);
    if (all > 0) {
      ASSERT_DOUBLE_EQ(policy_.Share("key-2"),
                       static_cast<double>(mine) / static_cast<double>(all));
    }
  }
}

}  // namespace
}  // namespace tenon
