// Who gets KV blocks, and who gives them up.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/scheduler/scheduler.h"
#include "tests/server/scheduler/scheduler_fixture.h"

namespace tenon {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class SchedulerRoomTest : public SchedulerFixture {};

TEST_F(SchedulerRoomTest, PausedSequenceKeepsItsBlocksWhileThereAreOthers) {
  Make(8);
  Sequence* slow = Add(1, Tokens(6), 8);
  Step();
  slow->set_paused(true);
  EXPECT_TRUE(Step().empty());
  EXPECT_EQ(slow->blocks().size(), 2u);
  slow->set_paused(false);
  EXPECT_THAT(Ids(Step()), ElementsAre(1));
}

TEST_F(SchedulerRoomTest, YoungestIsPreemptedAndRecomputed) {
  Make(4, {.max_batch_tokens = 16,
           .max_sequences = 4,
           .max_context_tokens = 64,
           .cache_salt = "",
           .prefix_cache = false});
  Sequence* old = Add(1, Tokens(8), 8);
  Sequence* young = Add(2, Tokens(8, 50), 8);
  Step();  // two blocks each: the pool is full
  EXPECT_EQ(pool_->num_available(), 0);
  const Batch batch = Step();
  EXPECT_THAT(Ids(batch), ElementsAre(1));
  EXPECT_EQ(scheduler_->num_preemptions(), 1);
  EXPECT_EQ(scheduler_->num_waiting(), 1);
  EXPECT_THAT(young->blocks(), IsEmpty());
  EXPECT_EQ(young->tokens().size(), 9u);  // what was generated stays
  while (!old->finished()) {
    EXPECT_THAT(Ids(Step()), ElementsAre(1));
  }
  const Batch again = Step();
  EXPECT_THAT(Ids(again), ElementsAre(2));
  EXPECT_EQ(again.rows[0].num_tokens, 9);
}

TEST_F(SchedulerRoomTest, PreemptedSequenceGetsItsPublishedBlocksBack) {
  Make(5);
  Sequence* old = Add(1, Tokens(7), 2);
  Sequence* young = Add(2, Tokens(9, 50), 8);
  Step();
  Step();
  ASSERT_FALSE(young->blocks().empty());
  Add(3, {1}, 1);
  young->set_paused(true);
  Sequence* big = Add(4, Tokens(13, 80), 2);
  Step();
  EXPECT_TRUE(old->finished());
  EXPECT_THAT(young->blocks(), IsEmpty());
  EXPECT_GT(scheduler_->num_preemptions(), 0);
  while (!big->finished()) {
    ASSERT_FALSE(Step().empty());
  }
  young->set_paused(false);
  const Batch batch = Step();
  ASSERT_THAT(Ids(batch), ElementsAre(2));
  EXPECT_EQ(young->num_cached_tokens(), 0);  // says what the first admission found
}

TEST_F(SchedulerRoomTest, PausedSequenceIsPreemptedBeforeARunningOne) {
  Make(4);
  Sequence* slow = Add(1, Tokens(8), 8);
  Add(2, Tokens(8, 50), 8);
  Step();
  slow->set_paused(true);
  EXPECT_THAT(Ids(Step()), ElementsAre(2));
  EXPECT_THAT(slow->blocks(), IsEmpty());
  EXPECT_EQ(scheduler_->num_waiting(), 1);
}

TEST_F(SchedulerRoomTest, YoungSequenceThatFindsNoBlocksStepsBack) {
  Make(4);
  Add(1, Tokens(10), 2);
  Sequence* young = Add(2, Tokens(3, 50), 8);
  Step();  // 3 + 1 blocks; the fourth token of 2 still fits
  Step();
  Sequence* old = scheduler_->Find(1);
  EXPECT_EQ(old, nullptr);  // finished, its blocks are cached or free
  EXPECT_EQ(young->num_generated_tokens(), 2);
}

TEST_F(SchedulerRoomTest, AdmissionDoesNotOvertakeForBlocks) {
  Make(4);
  Add(1, Tokens(12), 4);
  Add(2, Tokens(8, 50), 4);  // does not fit beside 1
  Add(3, {7}, 4);            // would
  EXPECT_THAT(Ids(Step()), ElementsAre(1));
  EXPECT_THAT(Ids(Step()), ElementsAre(1));
}

TEST_F(SchedulerRoomTest, AdmissionLeavesBlocksThatARunningPromptStillNeeds) {
  Make(8);
  Add(1, Tokens(24), 4);  // six blocks in two chunks
  EXPECT_THAT(Ids(Step()), ElementsAre(1));
  Add(2, Tokens(12, 50), 4);  // three blocks: two are left when 1 has its six
  EXPECT_THAT(Ids(Step()), ElementsAre(1));
}

struct FitsCase {
  int64_t prompt, max_tokens;
  bool fits;
};

TEST_F(SchedulerRoomTest, FitsComparesTheWorstCaseWithPoolAndContext) {
  Make(4);  // 16 tokens of KV; the context is 64
  const std::vector<FitsCase> cases = {
      {1, 1, true},  {16, 1, true},  {17, 1, false}, {15, 2, true},  {15, 3, false},
      {1, 16, true}, {1, 17, false}, {64, 1, false}, {63, 1, false}, {1, int64_t{1} << 31, false}};
  for (const FitsCase& c : cases) {
    EXPECT_EQ(scheduler_->Fits(c.prompt, c.max_tokens), c.fits) << c.prompt << "+" << c.max_tokens;
  }
  Make(16);  // 64 tokens: now the context is the limit, and more than it is never generated
  EXPECT_TRUE(scheduler_->Fits(63, 1000));
  EXPECT_FALSE(scheduler_->Fits(64, 1));
}

TEST_F(SchedulerRoomTest, TenantWithinItsShareTakesBlocksFromOneBeyond) {
  // The pool is full of "acme"; "globex" comes and has a right to half of it.
  Make(8);
  Add(1, Tokens(12), 8);
  Add(2, Tokens(12, 100), 8);
  Step();
  Step();
  Step();
  ASSERT_EQ(pool_->num_used(), 8);
  Sequence::Options other = SequenceOptions(3, Tokens(8, 200), 4);
  other.tenant = "globex";
  Add(std::move(other));
  EXPECT_THAT(Ids(Step()), ElementsAre(1, 3)) << "the younger one of acme gives up its blocks";
  EXPECT_EQ(scheduler_->num_preemptions(), 1);
}

TEST_F(SchedulerRoomTest, WithoutFairSharesNobodyTakesFromAnOlderOne) {
  SchedulerOptions options = Options();
  options.fair = false;
  Make(8, options);
  Add(1, Tokens(12), 8);
  Add(2, Tokens(12, 100), 8);
  Step();
  Step();
  Sequence::Options other = SequenceOptions(3, Tokens(8, 200), 4);
  other.tenant = "globex";
  Add(std::move(other));
  EXPECT_THAT(Ids(Step()), ElementsAre(1, 2));
}

TEST_F(SchedulerRoomTest, LimitOnBlocksHoldsWithRoomToSpare) {
  Make(20);
  Sequence::Options options = SequenceOptions(1, Tokens(8), 8);
  options.share.kv_percent = 20;  // 4 blocks
  EXPECT_TRUE(scheduler_->FitsTenant(8, 8, 0, options.share));
  EXPECT_FALSE(scheduler_->FitsTenant(8, 10, 0, options.share));
  Add(options);
  options.id = 2;
  Add(options);
  options.id = 3;
  options.tenant = "globex";
  options.share.kv_percent = 0;
  Add(options);
  EXPECT_THAT(Ids(Step()), ElementsAre(1, 3)) << "16 tokens a step";
  for (int step = 0; step < 60; ++step) {
    Step();
    ASSERT_LE(pool_->num_used(0), 4) << "step " << step;
  }
  EXPECT_THAT(scheduler_->sequences(), IsEmpty());
}

}  // namespace
}  // namespace tenon
