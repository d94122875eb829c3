// Which sequences have a row, and what a step leaves behind.
#include "server/scheduler/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/server/scheduler/scheduler_fixture.h"

namespace tenon {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class SchedulerTest : public SchedulerFixture {};

TEST_F(SchedulerTest, NothingToDoGivesAnEmptyBatch) {
  Make(8);
  EXPECT_TRUE(scheduler_->Schedule(At(0)).empty());
}

TEST_F(SchedulerTest, RowsAreLimitedToMaxSequences) {
  Make(32);
  for (SequenceId id = 1; id <= 6; ++id) {
    Add(id, {1}, 8);
  }
  EXPECT_THAT(Ids(Step()), ElementsAre(1, 2, 3, 4));
  EXPECT_EQ(scheduler_->num_waiting(), 2);
}

TEST_F(SchedulerTest, RowsAreSortedBySelectionBaseFirst) {
  Make(32);
  Add(1, {1}, 8, "bb");
  Add(2, {1}, 8);
  Add(3, {1, 2}, 8, "aa");
  Add(4, {1}, 8, "bb");
  const Batch batch = scheduler_->Schedule(At(0));
  EXPECT_THAT(Ids(batch), ElementsAre(2, 3, 1, 4));
  ASSERT_EQ(batch.segments.size(), 3u);
  EXPECT_TRUE(batch.segments[0].selection->is_base());
  EXPECT_EQ(batch.segments[1].token_begin, 1);
  EXPECT_EQ(batch.segments[1].token_end, 3);
  EXPECT_EQ(batch.segments[2].row_begin, 2);
  EXPECT_EQ(batch.segments[2].row_end, 4);
  EXPECT_EQ(batch.segments[2].token_end, batch.num_tokens);
}

TEST_F(SchedulerTest, BlockedSequencesDoNotHoldUpThoseBehind) {
  Make(32);
  Sequence* cold = Add(1, {1}, 8, "aa");
  Sequence* slow = Add(2, {1}, 8);
  Add(3, {1}, 8);
  cold->set_waiting_for_adapter(true);
  slow->set_paused(true);
  EXPECT_THAT(Ids(Step()), ElementsAre(3));
  cold->set_waiting_for_adapter(false);
  slow->set_paused(false);
  EXPECT_THAT(Ids(Step()), ElementsAre(2, 3, 1));
}

TEST_F(SchedulerTest, PausedSequencesDoNotCountAgainstMaxSequences) {
  Make(32);
  for (SequenceId id = 1; id <= 4; ++id) {
    Sequence* sequence = Add(id, {1}, 8);
    Step();
    sequence->set_paused(true);
  }
  Add(5, {1}, 8);
  EXPECT_THAT(Ids(Step()), ElementsAre(5));
}

TEST_F(SchedulerTest, StopTokenEndsAndIsCounted) {
  Make(16);
  Sequence::Options options = SequenceOptions(1, {1}, 8);
  options.sampling.stop_token_ids = {42, 43};
  options.sampling.min_tokens = 1;
  const Sequence* sequence = Add(std::move(options));
  Step(43);  // too early to count
  EXPECT_FALSE(sequence->finished());
  Step(43);
  EXPECT_EQ(sequence->finish_reason(), FinishReason::kStopToken);
  EXPECT_THAT(sequence->tokens(), ElementsAre(1, 43, 43));
  EXPECT_EQ(sequence->num_generated_tokens(), 2);
}

TEST_F(SchedulerTest, StopTokenAtMaxTokensIsAStop) {
  Make(16);
  Sequence::Options options = SequenceOptions(1, {1}, 1);
  options.sampling.stop_token_ids = {42};
  const Sequence* sequence = Add(std::move(options));
  Step(42);
  EXPECT_EQ(sequence->finish_reason(), FinishReason::kStopToken);
}

TEST_F(SchedulerTest, FullContextEnds) {
  Make(32);
  const Sequence* sequence = Add(1, Tokens(60), 100);
  while (!sequence->finished()) {
    ASSERT_FALSE(Step().empty());
  }
  EXPECT_EQ(sequence->finish_reason(), FinishReason::kContextLength);
  EXPECT_EQ(sequence->tokens().size(), 64u);
}

TEST_F(SchedulerTest, FinishReleasesBlocksAtOnce) {
  Make(16);
  Add(1, Tokens(8), 4);
  Add(2, Tokens(3, 50), 4);
  Step();
  scheduler_->Finish(1, FinishReason::kCancelled, At(0));
  scheduler_->Finish(1, FinishReason::kDeadline, At(0));  // too late to matter
  EXPECT_EQ(pool_->num_used(), 1);
  const std::vector<std::unique_ptr<Sequence>> finished = scheduler_->TakeFinished();
  ASSERT_EQ(finished.size(), 1u);
  EXPECT_EQ(finished[0]->finish_reason(), FinishReason::kCancelled);
  EXPECT_EQ(scheduler_->Find(1), nullptr);
  EXPECT_THAT(scheduler_->TakeFinished(), IsEmpty());
}

TEST_F(SchedulerTest, RowEndedBeforeCommitIsPassedOver) {
  Make(16);
  const Sequence* bad = Add(1, {1}, 4);
  const Sequence* good = Add(2, {2}, 4);
  const Batch batch = scheduler_->Schedule(At(0));
  scheduler_->Finish(1, FinishReason::kError, At(0));
  const std::vector<SampledToken> sampled = {{.token = 7, .logprob = 0, .top_logprobs = {}},
                                             {.token = 8, .logprob = 0, .top_logprobs = {}}};
  scheduler_->Commit(batch, sampled, At(0));
  EXPECT_THAT(bad->tokens(), ElementsAre(1));
  EXPECT_THAT(good->tokens(), ElementsAre(2, 8));
}

TEST_F(SchedulerTest, UncommittedStepIsPlannedAgain) {
  Make(16);
  Add(1, Tokens(6), 4);
  const Batch lost = scheduler_->Schedule(At(0));
  const Batch again = scheduler_->Schedule(At(0));
  EXPECT_EQ(again.rows[0].first_token, 0);
  EXPECT_EQ(again.rows[0].num_tokens, lost.rows[0].num_tokens);
}

TEST_F(SchedulerTest, TimeIsChargedToWhatItWasSpentOn) {
  Make(16);
  Sequence* sequence = Add(1, Tokens(20), 3, "aa");
  sequence->set_waiting_for_adapter(true);
  scheduler_->Schedule(At(1));  // queue until somebody looked
  sequence->set_waiting_for_adapter(false);
  Step(9, At(4));  // adapter wait until now; first chunk
  Step(9, At(6));  // first token
  Step(9, At(7));
  Step(9, At(11));
  ASSERT_TRUE(sequence->finished());
  EXPECT_EQ(sequence->timings().queue, absl::Seconds(1));
  EXPECT_EQ(sequence->timings().adapter_wait, absl::Seconds(3));
  EXPECT_EQ(sequence->timings().prefill, absl::Seconds(2));
  EXPECT_EQ(sequence->timings().decode, absl::Seconds(5));
}

TEST_F(SchedulerTest, ClockThatStepsBackTakesNothingAway) {
  Make(16);
  Sequence* sequence = Add(1, {1}, 3);
  Step(9, At(5));
  Step(9, At(2));
  Step(9, At(6));
  EXPECT_EQ(sequence->timings().queue, absl::Seconds(5));
  EXPECT_EQ(sequence->timings().decode, absl::Seconds(1));
}

TEST_F(SchedulerTest, FreedBlocksAreReportedBeforeTheyAreWrittenAgain) {
  SchedulerOptions options = Options();
  options.prefix_cache = false;
  Make(4, options);
  Add(1, Tokens(8), 1);
  EXPECT_THAT(Step().recycled_blocks, IsEmpty());
  Add(2, Tokens(8, 50), 1);
  const Batch batch = scheduler_->Schedule(At(0));
  EXPECT_THAT(batch.recycled_blocks, ::testing::UnorderedElementsAre(0, 1));
}

TEST_F(SchedulerTest, RowIsTakenFromTheTenantWithMost) {
  Make(32);
  for (SequenceId id = 1; id <= 4; ++id) {
    Add(id, Tokens(2, 10 * static_cast<int32_t>(id)), 20);
  }
  Step();
  Sequence::Options other = SequenceOptions(5, Tokens(2, 90), 20);
  other.tenant = "globex";
  const Sequence* late = Add(std::move(other));
  EXPECT_THAT(Ids(Step()), ElementsAre(1, 2, 3, 5));
  EXPECT_EQ(scheduler_->num_running(), 5) << "who sits out keeps what he has";
  EXPECT_EQ(scheduler_->num_preemptions(), 0);
  EXPECT_EQ(late->num_generated_tokens(), 1);
  for (int step = 0; step < 8; ++step) {
    Step();
  }
  for (const Sequence* sequence : scheduler_->sequences()) {
    EXPECT_GE(sequence->num_generated_tokens(), 5) << "the rows go round";
  }
}

}  // namespace
}  // namespace tenon
