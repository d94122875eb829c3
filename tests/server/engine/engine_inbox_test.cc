#include "server/engine/engine_inbox.h"

#include <gtest/gtest.h>

#include "adapters/base/errors.h"

namespace tenon {
namespace {

GenerationRequest Samples(int32_t count) {
  GenerationRequest request;
  request.num_samples = count;
  return request;
}

TEST(EngineInboxTest, TakeGivesEachRequestOnce) {
  EngineInbox inbox(10);
  ASSERT_TRUE(inbox.Reserve("", 2).ok());
  ASSERT_TRUE(inbox.Put(Samples(2)).ok());
  EXPECT_EQ(inbox.Take().requests.size(), 1u);
  EXPECT_TRUE(inbox.Take().requests.empty());
}

TEST(EngineInboxTest, QueueCountsSequencesThatAreNotRunning) {
  EngineInbox inbox(4);
  ASSERT_TRUE(inbox.Reserve("", 3).ok());
  EXPECT_EQ(inbox.Reserve("", 2).code(), absl::StatusCode::kResourceExhausted);
  EngineStats stats;
  stats.num_running = 3;
  inbox.Report(stats, {}, absl::Seconds(1));
  EXPECT_TRUE(inbox.Reserve("", 4).ok());
  EXPECT_FALSE(inbox.Reserve("", 1).ok());
  stats.num_running = 0;
  inbox.Report(stats, {{"", 7}}, absl::Seconds(1));
  EXPECT_TRUE(inbox.Reserve("", 4).ok());
}

TEST(EngineInboxTest, RetryTimeIsWhatServingTheQueueTakes) {
  EngineInbox inbox(40);
  ASSERT_TRUE(inbox.Reserve("", 40).ok());
  inbox.Report(EngineStats(), {}, absl::Milliseconds(50));
  const std::optional<ErrorDetail> detail = GetErrorDetail(inbox.Reserve("", 1));
  ASSERT_TRUE(detail.has_value());
  EXPECT_EQ(detail->reason, "QUEUE_FULL");
  EXPECT_EQ(detail->retry_after, absl::Seconds(2));
  inbox.Report(EngineStats(), {}, absl::Hours(1));
  EXPECT_EQ(GetErrorDetail(inbox.Reserve("", 1))->retry_after, absl::Seconds(60));
  inbox.Report(EngineStats(), {}, absl::ZeroDuration());
  EXPECT_EQ(GetErrorDetail(inbox.Reserve("", 1))->retry_after, absl::Milliseconds(100));
}

TEST(EngineInboxTest, ClosedInboxKeepsWhatHasAPlace) {
  EngineInbox inbox(10);
  ASSERT_TRUE(inbox.Reserve("", 1).ok());
  inbox.Close();
  const absl::Status refused = inbox.Reserve("", 1);
  EXPECT_EQ(refused.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(GetErrorDetail(refused)->reason, "DRAINING");
  EXPECT_TRUE(inbox.Put(Samples(1)).ok());
  EXPECT_EQ(inbox.Take().requests.size(), 1u);
}

TEST(EngineInboxTest, StopGivesPlacesBack) {
  EngineInbox inbox(10);
  ASSERT_TRUE(inbox.Reserve("", 1).ok());
  inbox.Stop();
  EXPECT_FALSE(inbox.AwaitIdle(absl::ZeroDuration()));
  EXPECT_EQ(inbox.Put(Samples(1)).code(), absl::StatusCode::kUnavailable);
  EXPECT_TRUE(inbox.AwaitIdle(absl::ZeroDuration()));
  EXPECT_TRUE(inbox.Take().stop);
}

// Each of these returns only because of the wake-up: the timeout is infinite.
TEST(EngineInboxTest, WaitReturnsForWhatCameSinceTheLastTake) {
  EngineInbox inbox(10);
  inbox.Take();
  inbox.Wake();
  inbox.Wait(absl::InfiniteDuration());
  inbox.Take();
  ASSERT_TRUE(inbox.Reserve("", 1).ok());
  ASSERT_TRUE(inbox.Put(Samples(1)).ok());
  inbox.Wait(absl::InfiniteDuration());
  inbox.Take();
  inbox.Stop();
  inbox.Wait(absl::InfiniteDuration());
}

TEST(EngineInboxTest, WaitEndsAtItsTimeout) {
  EngineInbox inbox(10);
  inbox.Wait(absl::Milliseconds(1));
  inbox.Wait(-absl::Seconds(1));
}

TEST(EngineInboxTest, FloodOfOneTenantLeavesPlacesForOthers) {
  EngineInbox inbox(100);
  ASSERT_TRUE(inbox.Reserve("noisy", 100).ok());
  EXPECT_EQ(GetErrorDetail(inbox.Reserve("noisy", 1))->reason, "QUEUE_FULL");
  ASSERT_TRUE(inbox.Reserve("quiet", 50).ok()) << "half, as there are two";
  EXPECT_FALSE(inbox.Reserve("quiet", 1).ok());
  ASSERT_TRUE(inbox.Reserve("third", 33).ok());
  EXPECT_FALSE(inbox.Reserve("fourth", 25).ok()) << "twice the bound is the end for all";
  EXPECT_TRUE(inbox.Reserve("fourth", 17).ok());
  inbox.Report(EngineStats(), {{"noisy", 100}, {"quiet", 50}}, absl::Seconds(1));
  EXPECT_TRUE(inbox.Reserve("quiet", 50).ok());
}

TEST(EngineInboxTest, WithoutFairSharesTheQueueIsOneForAll) {
  EngineInbox inbox(100, /*fair=*/false);
  ASSERT_TRUE(inbox.Reserve("noisy", 100).ok());
  EXPECT_FALSE(inbox.Reserve("quiet", 1).ok());
}

}  // namespace
}  // namespace tenon
