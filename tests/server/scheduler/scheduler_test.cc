#include "server/scheduler/scheduler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/server/scheduler/scheduler_fixture.h"

namespace tenon {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr int64_t kBlockSize = 4;

absl::Time At(int64_t seconds) { return absl::UnixEpoch() + absl::Seconds(seconds); }

class SchedulerTest : public ::testing::Test {
 protected:
  static SchedulerOptions Options() {
    return {.max_batch_tokens = 16,
            .max_sequences = 4,
            .max_context_tokens = 64,
            .cache_salt = "base",
            .prefix_cache = true};
  }
  void Make(int64_t num_blocks, SchedulerOptions options = Options()) {
    pool_ = std::make_unique<BlockPool>(num_blocks, kBlockSize);
    scheduler_ = std::make_unique<Scheduler>(options, pool_.get());
  }
  Sequence* Add(Sequence::Options options) {
    auto sequence = std::make_unique<Sequence>(std::move(options));
    Sequence* added = sequence.get();
    scheduler_->Add(std::move(sequence));
    return added;
  }
  Sequence* Add(SequenceId id, std::vector<int32_t> prompt, int32_t max_tokens,
                const std::string& digest = "") {
    return Add(SequenceOptions(id, std::move(prompt), max_tokens, digest));
  }
  void Commit(const Batch& batch, int32_t token = 99, absl::Time now = At(0)) {
    std::vector<SampledToken> sampled;
    for (const BatchRow& row : batch.rows) {
      if (row.samples) {
        sampled.push_back({.token = token, .logprob = 0, .top_logprobs = {}});
      }
    }
    scheduler_->Commit(batch, sampled, now);
  }
  Batch Step(int32_t token = 99, absl::Time now = At(0)) {
    Batch batch = scheduler_->Schedule(now);
    Commit(batch, token, now);
    return batch;
  }
  static std::vector<SequenceId> Ids(const Batch& batch) {
    std::vector<SequenceId> ids;
    for (const BatchRow& row : batch.rows) {
      ids.push_back(row.sequence->id());
    }
    return ids;
  }

  std::unique_ptr<BlockPool> pool_;
  std::unique_ptr<Scheduler> scheduler_;
};

TEST_F(SchedulerTest, NothingToDoGivesAnEmptyBatch) {
  Make(8);
  EXPECT_TRUE(scheduler_->Schedule(At(0)).empty());
}

TEST_F(SchedulerTest, LongPromptIsPrefilledInChunksAndSamplesInTheLast) {
  Make(16);
  const Sequence* sequence = Add(1, Tokens(20), 2);
  Batch batch = Step();
  ASSERT_EQ(batch.rows.size(), 1u);
  EXPECT_EQ(batch.rows[0].num_tokens, 16);
  EXPECT_FALSE(batch.rows[0].samples);
  EXPECT_EQ(sequence->blocks().size(), 4u);  // no more than the step needed
  batch = Step();
  EXPECT_EQ(batch.rows[0].first_token, 16);
  EXPECT_EQ(batch.rows[0].num_tokens, 4);
  EXPECT_TRUE(batch.rows[0].samples);
  EXPECT_EQ(sequence->num_generated_tokens(), 1);
}

TEST_F(SchedulerTest, DecodesComeBeforePrefillChunks) {
  Make(32);
  Add(1, Tokens(30, 100), 8);
  Add(2, {1, 2, 3}, 8);
  EXPECT_THAT(Ids(Step()), ElementsAre(1));  // 16 of 30 tokens, nothing left for 2
  EXPECT_THAT(Ids(Step()), ElementsAre(1, 2));
  const Batch batch = Step();
  EXPECT_THAT(Ids(batch), ElementsAre(1, 2));
  Add(3, Tokens(40, 200), 8);
  const Batch mixed = scheduler_->Schedule(At(0));
  EXPECT_THAT(Ids(mixed), ElementsAre(1, 2, 3));
  EXPECT_EQ(mixed.rows[0].num_tokens, 1);
  EXPECT_EQ(mixed.rows[1].num_tokens, 1);
  EXPECT_EQ(mixed.rows[2].num_tokens, 14);
  EXPECT_EQ(mixed.num_tokens, 16);
}

TEST_F(SchedulerTest, PrefillBesideDecodesIsBounded) {
  SchedulerOptions options = Options();
  options.prefill_chunk_tokens = 5;
  Make(32, options);
  Add(1, {1, 2, 3}, 8);
  Step();
  Add(2, Tokens(12, 100), 8);
  const Batch first = Step();
  ASSERT_THAT(Ids(first), ElementsAre(1, 2));
  EXPECT_EQ(first.rows[1].num_tokens, 5);
  EXPECT_EQ(Step().rows[1].num_tokens, 5);
  const Batch last = Step();
  EXPECT_EQ(last.rows[1].num_tokens, 2);
  EXPECT_TRUE(last.rows[1].samples);
}

TEST_F(SchedulerTest, PrefillWithoutDecodesTakesTheWholeStep) {
  SchedulerOptions options = Options();
  options.prefill_chunk_tokens = 5;
  Make(32, options);
  Add(1, Tokens(12, 100), 8);
  Add(2, Tokens(12, 200), 8);
  EXPECT_EQ(Step().num_tokens, 16);
}

TEST_F(SchedulerTest, EachOfUpToEightPromptsAddsAChunk) {
  SchedulerOptions options = Options();
  options.max_batch_tokens = 64;
  options.max_sequences = 12;
  options.prefill_chunk_tokens = 5;
  Make(64, options);
  Add(1, {1, 2, 3}, 8);
  Step();
  Add(2, Tokens(30, 100), 8);
  Add(3, Tokens(30, 200), 8);
  EXPECT_EQ(Step().num_tokens, 1 + 2 * 5);
  for (SequenceId id = 4; id <= 12; ++id) {
    Add(id, Tokens(30, static_cast<int32_t>(100 * id)), 8);
  }
  EXPECT_EQ(Step().num_tokens, 1 + 8 * 5);
}

TEST_F(SchedulerTest, ManyDecodesAllowTwoPromptTokensEach) {
  SchedulerOptions options = Options();
  options.prefill_chunk_tokens = 2;
  Make(32, options);
  for (SequenceId id = 1; id <= 3; ++id) {
    Add(id, {1, 2}, 8);
  }
  Step();
  Add(4, Tokens(12, 100), 8);
  EXPECT_EQ(Step().rows[3].num_tokens, 6);
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

TEST_F(SchedulerTest, PausedSequenceKeepsItsBlocksWhileThereAreOthers) {
  Make(8);
  Sequence* slow = Add(1, Tokens(6), 8);
  Step();
  slow->set_paused(true);
  EXPECT_TRUE(Step().empty());
  EXPECT_EQ(slow->blocks().size(), 2u);
  slow->set_paused(false);
  EXPECT_THAT(Ids(Step()), ElementsAre(1));
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

TEST_F(SchedulerTest, YoungestIsPreemptedAndRecomputed) {
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

TEST_F(SchedulerTest, PreemptedSequenceGetsItsPublishedBlocksBack) {
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

TEST_F(SchedulerTest, PausedSequenceIsPreemptedBeforeARunningOne) {
  Make(4);
  Sequence* slow = Add(1, Tokens(8), 8);
  Add(2, Tokens(8, 50), 8);
  Step();
  slow->set_paused(true);
  EXPECT_THAT(Ids(Step()), ElementsAre(2));
  EXPECT_THAT(slow->blocks(), IsEmpty());
  EXPECT_EQ(scheduler_->num_waiting(), 1);
}

TEST_F(SchedulerTest, YoungSequenceThatFindsNoBlocksStepsBack) {
  Make(4);
  Add(1, Tokens(10), 2);
  Sequence* young = Add(2, Tokens(3, 50), 8);
  Step();  // 3 + 1 blocks; the fourth token of 2 still fits
  Step();
  Sequence* old = scheduler_->Find(1);
  EXPECT_EQ(old, nullptr);  // finished, its blocks are cached or free
  EXPECT_EQ(young->num_generated_tokens(), 2);
}

TEST_F(SchedulerTest, AdmissionDoesNotOvertakeForBlocks) {
  Make(4);
  Add(1, Tokens(12), 4);
  Add(2, Tokens(8, 50), 4);  // does not fit beside 1
  Add(3, {7}, 4);            // would
  EXPECT_THAT(Ids(Step()), ElementsAre(1));
  EXPECT_THAT(Ids(Step()), ElementsAre(1));
}

TEST_F(SchedulerTest, AdmissionLeavesBlocksThatARunningPromptStillNeeds) {
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

TEST_F(SchedulerTest, FitsComparesTheWorstCaseWithPoolAndContext) {
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

TEST_F(SchedulerTest, SecondSequenceSharesFullBlocksOfTheSamePrompt) {
  Make(16);
  Sequence* first = Add(1, Tokens(10), 4);
  Step();
  Sequence* second = Add(2, Tokens(10), 4);
  const Batch batch = Step();
  EXPECT_EQ(second->num_cached_tokens(), 8);
  EXPECT_EQ(batch.rows[1].first_token, 8);
  EXPECT_EQ(batch.rows[1].num_tokens, 2);
  EXPECT_EQ(second->blocks()[0], first->blocks()[0]);
  EXPECT_EQ(second->blocks()[1], first->blocks()[1]);
  EXPECT_NE(second->blocks()[2], first->blocks()[2]);
}

TEST_F(SchedulerTest, LastPromptTokenIsAlwaysComputed) {
  Make(16);
  Add(1, Tokens(8), 4);
  Step();
  Sequence* second = Add(2, Tokens(8), 4);
  Step();
  EXPECT_EQ(second->num_cached_tokens(), 4);
  EXPECT_EQ(second->num_generated_tokens(), 1);
}

TEST_F(SchedulerTest, FinishedSequenceLeavesItsPrefixBehind) {
  Make(16);
  Add(1, Tokens(8), 1);
  Step();
  EXPECT_EQ(pool_->num_used(), 0);
  EXPECT_EQ(pool_->num_cached(), 2);
  Sequence* second = Add(2, Tokens(12), 1);
  Step();
  EXPECT_EQ(second->num_cached_tokens(), 8);
}

TEST_F(SchedulerTest, GeneratedTokensAreFoundByTheNextTurn) {
  Make(16);
  Sequence* first = Add(1, Tokens(6), 4);
  while (!first->finished()) {
    Step();
  }
  std::vector<int32_t> turn = first->tokens();  // 10, of which 9 have KV
  turn.push_back(5);
  Sequence* second = Add(2, turn, 1);
  Step();
  EXPECT_EQ(second->num_cached_tokens(), 8);
}

TEST_F(SchedulerTest, NoSharingAcrossTenantsOrSelections) {
  Make(32);
  Add(1, Tokens(8), 4);
  Step();
  Sequence::Options other = SequenceOptions(2, Tokens(8), 4);
  other.tenant = "bravo";
  const Sequence* tenant = Add(std::move(other));
  const Sequence* adapted = Add(3, Tokens(8), 4, "aa");
  Step();
  EXPECT_EQ(tenant->num_cached_tokens(), 0);
  EXPECT_EQ(adapted->num_cached_tokens(), 0);
}

TEST_F(SchedulerTest, PromptLogprobsComputeTheWholePrompt) {
  Make(16);
  Add(1, Tokens(8), 4);
  Step();
  Sequence::Options options = SequenceOptions(2, Tokens(8), 4);
  options.sampling.prompt_logprobs = 1;
  Add(std::move(options));
  const Batch batch = Step();
  EXPECT_EQ(batch.rows[1].first_token, 0);
  EXPECT_EQ(batch.rows[1].num_tokens, 8);
}

TEST_F(SchedulerTest, PrefixCacheCanBeTurnedOff) {
  SchedulerOptions options = Options();
  options.prefix_cache = false;
  Make(16, options);
  Add(1, Tokens(8), 1);
  Step();
  EXPECT_EQ(pool_->num_cached(), 0);
}

TEST_F(SchedulerTest, SiblingsWaitForTheirLeadersPromptAndShareIt) {
  Make(32);
  Add(1, Tokens(20), 4);
  Sequence::Options options = SequenceOptions(2, Tokens(20), 4);
  options.leader = 1;
  const Sequence* sibling = Add(std::move(options));
  Add(3, {7}, 4);
  EXPECT_THAT(Ids(Step()), ElementsAre(1));
  EXPECT_THAT(Ids(Step()), ElementsAre(1, 3));  // passed over, not holding up
  const Batch batch = Step();
  EXPECT_THAT(Ids(batch), ElementsAre(1, 2, 3));
  EXPECT_EQ(sibling->num_cached_tokens(), 16);
}

TEST_F(SchedulerTest, SiblingsOfAnEndedLeaderGoOnAlone) {
  Make(32);
  Add(1, Tokens(20), 4);
  Sequence::Options options = SequenceOptions(2, Tokens(20), 4);
  options.leader = 1;
  Add(std::move(options));
  Step();
  scheduler_->Finish(1, FinishReason::kCancelled, At(0));
  EXPECT_THAT(Ids(Step()), ElementsAre(2));
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

TEST_F(SchedulerTest, SharedModeFindsOtherTenantsPrefixesOfTheBaseOnly) {
  for (const bool shared : {false, true}) {
    SchedulerOptions options = Options();
    options.share_base_prefixes = shared;
    Make(16, options);
    for (const std::string digest : {"", "aa"}) {
      const SequenceId id = digest.empty() ? 1 : 3;
      Add(id, Tokens(9), 1, digest);
      Step();
      Sequence::Options other = SequenceOptions(id + 1, Tokens(9), 1, digest);
      other.tenant = "globex";
      const Sequence* guess = Add(std::move(other));
      scheduler_->Schedule(At(0));
      EXPECT_EQ(guess->num_cached_tokens(), shared && digest.empty() ? 8 : 0) << digest;
      scheduler_->Finish(id + 1, FinishReason::kCancelled, At(0));
    }
  }
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

TEST_F(SchedulerTest, TenantWithinItsShareTakesBlocksFromOneBeyond) {
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

TEST_F(SchedulerTest, WithoutFairSharesNobodyTakesFromAnOlderOne) {
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

TEST_F(SchedulerTest, LimitOnBlocksHoldsWithRoomToSpare) {
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

TEST_F(SchedulerTest, DeterministicRequestsShareWithTheirLikeOnly) {
  Make(16);
  Add(1, Tokens(9), 1, "aa");  // may have run on merged weights
  Step();
  Sequence::Options exact = SequenceOptions(2, Tokens(9), 1, "aa");
  exact.deterministic = true;
  const Sequence* first = Add(exact);
  Step();
  EXPECT_EQ(first->num_cached_tokens(), 0);
  exact.id = 3;
  const Sequence* second = Add(exact);
  Step();
  EXPECT_EQ(second->num_cached_tokens(), 8);
}

}  // namespace
}  // namespace tenon
