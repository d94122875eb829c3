#include "server/scheduler/start_estimate.h"

#include <gtest/gtest.h>

namespace tenon {
namespace {

absl::Time At(double seconds) { return absl::UnixEpoch() + absl::Seconds(seconds); }

TEST(StartEstimateTest, KnowsNothingAtFirst) {
  StartEstimate estimate;
  EXPECT_EQ(estimate.Until(10, At(0)), absl::ZeroDuration());
  estimate.Observe(0, true, At(1));
  EXPECT_EQ(estimate.Until(10, At(1)), absl::ZeroDuration());
}

TEST(StartEstimateTest, CountsIntervalsOfTheQueueBefore) {
  StartEstimate estimate;
  for (int i = 0; i < 50; ++i) {
    estimate.Observe(1, true, At(0.5 * i));
  }
  EXPECT_EQ(estimate.Until(0, At(24.5)), absl::Seconds(0.5));
  EXPECT_EQ(estimate.Until(9, At(24.5)), absl::Seconds(5));
  EXPECT_EQ(estimate.Until(9, At(24.75)), absl::Seconds(4.75)) << "a part has passed";
}

TEST(StartEstimateTest, SeveralStartsInOneStepShareItsInterval) {
  StartEstimate estimate;
  for (int i = 0; i < 50; ++i) {
    estimate.Observe(4, true, At(i));
  }
  EXPECT_NEAR(absl::ToDoubleSeconds(estimate.Until(7, At(49))), 2.0, 1e-6);
}

TEST(StartEstimateTest, NobodyWaitsSoTheNextMayStartAtOnce) {
  StartEstimate estimate;
  estimate.Observe(0, true, At(0));
  estimate.Observe(1, true, At(10));
  estimate.Observe(1, false, At(20));
  EXPECT_EQ(estimate.Until(0, At(21)), absl::ZeroDuration());
}

TEST(StartEstimateTest, IdleTimeIsNoWait) {
  StartEstimate estimate;
  estimate.Observe(0, true, At(0));
  estimate.Observe(1, false, At(1));
  estimate.Observe(0, true, At(1000));
  estimate.Observe(1, true, At(1001));
  EXPECT_EQ(estimate.Until(0, At(1001)), absl::Seconds(1));
}

TEST(StartEstimateTest, OverdueStartLengthensTheEstimate) {
  StartEstimate estimate;
  estimate.Observe(0, true, At(0));
  estimate.Observe(1, true, At(1));
  EXPECT_EQ(estimate.Until(2, At(1)), absl::Seconds(3));
  EXPECT_EQ(estimate.Until(2, At(3)), absl::Seconds(2)) << "the next one is a little late";
  EXPECT_EQ(estimate.Until(2, At(81)), absl::Seconds(20)) << "80 seconds without any start";
}

TEST(StartEstimateTest, ClockThatStepsBackIsNoNegativeWait) {
  StartEstimate estimate;
  estimate.Observe(0, true, At(10));
  estimate.Observe(1, true, At(5));
  EXPECT_GE(estimate.Until(0, At(0)), absl::ZeroDuration());
}

}  // namespace
}  // namespace tenon
