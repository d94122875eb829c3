// Virtual tokens in the scheduler: computed once, shared, given back.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/scheduler/scheduler.h"
#include "tests/server/scheduler/scheduler_fixture.h"

namespace tenon {
namespace {

using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

constexpr int64_t kBlockSize = 4;

class ContextTest : public ::testing::Test {
 protected:
  static SchedulerOptions Options() {
    return {.max_batch_tokens = 64,
            .max_sequences = 16,
            .max_context_tokens = 64,
            .cache_salt = "base",
            .prefix_cache = true};
  }
  void Make(int64_t num_blocks, SchedulerOptions options = Options()) {
    scheduler_.reset();
    pool_ = std::make_unique<BlockPool>(num_blocks, kBlockSize);
    model_ = std::make_unique<HashModel>(num_blocks, kBlockSize, 1000);
    scheduler_ = std::make_unique<Scheduler>(options, pool_.get());
  }
  /// A sequence behind the `num_virtual` tokens of the adapter with that digest.
  Sequence* Add(SequenceId id, std::vector<int32_t> prompt, int32_t max_tokens,
                const std::string& digest, int64_t num_virtual,
                const std::string& tenant = "acme") {
    Sequence::Options options = SequenceOptions(id, std::move(prompt), max_tokens);
    options.selection = SelectionOf(digest, num_virtual);
    options.tenant = tenant;
    auto sequence = std::make_unique<Sequence>(std::move(options));
    Sequence* added = sequence.get();
    scheduler_->Add(std::move(sequence));
    return added;
  }
  Batch Schedule() { return scheduler_->Schedule(absl::UnixEpoch()); }
  Batch Step() {
    Batch batch = Schedule();
    scheduler_->Commit(batch, model_->Run(batch), absl::UnixEpoch());
    num_context_tokens_ += batch.num_context_tokens;
    return batch;
  }
  void Cancel(SequenceId id) {
    scheduler_->Finish(id, FinishReason::kCancelled, absl::UnixEpoch());
  }
  /// Steps until all is done; each sequence has the tokens that it would have alone.
  void RunToEnd() {
    while (!scheduler_->sequences().empty()) {
      ASSERT_FALSE(Step().empty());
    }
    for (const std::unique_ptr<Sequence>& sequence : scheduler_->TakeFinished()) {
      std::vector<int32_t> expected(sequence->tokens().begin(),
                                    sequence->tokens().begin() + sequence->num_prompt_tokens());
      while (expected.size() < sequence->tokens().size()) {
        expected.push_back(model_->Solo(*sequence, expected));
      }
      EXPECT_EQ(sequence->tokens(), expected) << sequence->id();
      EXPECT_EQ(sequence->finish_reason(), FinishReason::kMaxTokens);
    }
    EXPECT_EQ(pool_->num_used(), 0);
  }

  std::unique_ptr<BlockPool> pool_;
  std::unique_ptr<HashModel> model_;
  std::unique_ptr<Scheduler> scheduler_;
  int64_t num_context_tokens_ = 0;
};

TEST_F(ContextTest, SixteenSequencesUseItsBlocksOnce) {
  Make(64);
  for (SequenceId id = 1; id <= 16; ++id) {
    Add(id, {static_cast<int32_t>(id)}, 4, "prefix", 10);
  }
  const Batch batch = Step();
  ASSERT_EQ(batch.contexts.size(), 1u);
  EXPECT_EQ(batch.num_context_tokens, 10);
  EXPECT_EQ(batch.rows.size(), 16u);  // in the step that computes what they look at
  const Context& context = *batch.contexts[0].context;
  EXPECT_EQ(context.num_users(), 16);
  EXPECT_EQ(context.num_slots(), 12);
  EXPECT_EQ(context.first_slot(), 2);
  ASSERT_EQ(context.blocks().size(), 3u);
  for (const BlockId block : context.blocks()) {
    EXPECT_EQ(pool_->ref_count(block), 16);
  }
  EXPECT_EQ(pool_->num_used(), 3 + 16);
  for (const BatchRow& row : batch.rows) {
    EXPECT_TRUE(std::equal(context.blocks().begin(), context.blocks().end(),
                           row.sequence->blocks().begin()));
  }
  RunToEnd();
  EXPECT_EQ(num_context_tokens_, 10);
}

TEST_F(ContextTest, WholeBlocksNeedNoPadding) {
  Make(8);
  Add(1, {1, 2}, 3, "prefix", 8);
  const Batch batch = Step();
  EXPECT_EQ(batch.contexts[0].context->first_slot(), 0);
  EXPECT_EQ(batch.rows[0].sequence->num_context_slots(), 8);
  RunToEnd();
}

TEST_F(ContextTest, LongOneIsComputedInChunksAndThenItsSequencesRun) {
  SchedulerOptions options = Options();
  options.max_batch_tokens = 16;
  Make(32, options);
  Add(1, {1, 2, 3}, 2, "prefix", 37);
  Add(2, {4, 5, 6}, 2, "prefix", 37);
  for (const int64_t first : {0, 16}) {
    const Batch batch = Step();
    ASSERT_EQ(batch.contexts.size(), 1u);
    EXPECT_EQ(batch.contexts[0].first_token, first);
    EXPECT_EQ(batch.contexts[0].num_tokens, 16);
    EXPECT_THAT(batch.rows, IsEmpty());
  }
  const Batch batch = Step();
  EXPECT_EQ(batch.contexts[0].num_tokens, 5);
  EXPECT_EQ(batch.rows.size(), 2u);  // what is left of the budget
  RunToEnd();
  EXPECT_EQ(num_context_tokens_, 37);
}

TEST_F(ContextTest, DecodesOfOthersComeBeforeIt) {
  SchedulerOptions options = Options();
  options.max_batch_tokens = 16;
  Make(32, options);
  Add(1, {1}, 20, "", 0);
  Step();
  Add(2, {2}, 2, "prefix", 30);
  const Batch batch = Step();
  EXPECT_EQ(batch.rows.size(), 1u);
  EXPECT_EQ(batch.num_context_tokens, 15);
  RunToEnd();
}

TEST_F(ContextTest, SelectionsAndTenantsHaveTheirOwn) {
  Make(32);
  Add(1, {1}, 2, "aa", 4);
  Add(2, {1}, 2, "bb", 4);
  Add(3, {1}, 2, "aa", 4, "bravo");
  const Batch batch = Step();
  EXPECT_EQ(batch.contexts.size(), 3u);
  EXPECT_EQ(batch.segments.size(), 2u);  // the arithmetic of equal selections is the same
  EXPECT_NE(batch.contexts[0].context->blocks(), batch.contexts[2].context->blocks());
  RunToEnd();
}

TEST_F(ContextTest, StaysCachedWhileUnusedAndIsFoundAgain) {
  for (const bool prefix_cache : {true, false}) {
    SchedulerOptions options = Options();
    options.prefix_cache = prefix_cache;
    Make(32, options);
    num_context_tokens_ = 0;
    Add(1, {1}, 2, "prefix", 10);
    RunToEnd();
    EXPECT_EQ(pool_->num_cached(), 3);
    Add(2, {2}, 2, "prefix", 10);
    EXPECT_THAT(Step().contexts, IsEmpty());
    RunToEnd();
    EXPECT_EQ(num_context_tokens_, 10);
  }
}

TEST_F(ContextTest, EvictedBlocksAreComputedAgainFromTheFirstOneLost) {
  Make(8);
  Add(1, {1}, 2, "prefix", 10);
  RunToEnd();
  ASSERT_EQ(pool_->num_cached(), 3);
  std::vector<BlockId> taken;
  ASSERT_TRUE(pool_->Allocate(6, taken));  // 5 free ones, and the last block of the context
  for (const BlockId block : taken) {
    pool_->Release(block);
  }
  Add(2, {2}, 2, "prefix", 10);
  const Batch batch = Step();
  ASSERT_EQ(batch.contexts.size(), 1u);
  EXPECT_EQ(batch.contexts[0].first_token, 6);  // two blocks of 4 less 2 of padding
  EXPECT_EQ(batch.contexts[0].num_tokens, 4);
  RunToEnd();
}

TEST_F(ContextTest, EvictedAltogetherItIsComputedAnew) {
  Make(8);
  Add(1, {1}, 2, "prefix", 10);
  RunToEnd();
  Add(2, Tokens(29, 100), 2, "", 0);  // all eight blocks
  Step();
  EXPECT_EQ(pool_->num_available(), 0);
  Cancel(2);
  scheduler_->TakeFinished();
  Add(3, {3}, 2, "prefix", 10);
  RunToEnd();
  EXPECT_EQ(num_context_tokens_, 20);
}

TEST_F(ContextTest, FloodOfPromptsEvictsPromptsBeforeAContextOfAResidentAdapter) {
  Make(32);
  Add(1, {1}, 2, "prefix", 10);
  RunToEnd();
  for (SequenceId id = 2; id < 12; ++id) {  // each a quarter of the pool, of both tenants
    Add(id, Tokens(29, static_cast<int32_t>(50 * id)), 2, "", 0, id % 2 == 0 ? "acme" : "bravo");
    RunToEnd();
  }
  Add(20, {2}, 2, "prefix", 10);
  EXPECT_THAT(Step().contexts, IsEmpty());
  RunToEnd();
  EXPECT_EQ(num_context_tokens_, 10);

  scheduler_->LetContextsGo([](const std::string& digest) { return digest != "prefix"; });
  EXPECT_GE(pool_->num_cached(), 3) << "let go is not thrown away";
  for (SequenceId id = 30; id < 40; ++id) {
    Add(id, Tokens(29, static_cast<int32_t>(20 * id)), 2, "", 0);
    RunToEnd();
  }
  Add(50, {3}, 2, "prefix", 10);
  RunToEnd();
  EXPECT_EQ(num_context_tokens_, 20) << "its adapter had left";
}

TEST_F(ContextTest, RequestsThatNeedAllOfThePoolGetItFromContextsToo) {
  Make(16);
  Add(1, {1}, 2, "prefix", 10);
  RunToEnd();
  Add(2, Tokens(60, 100), 2, "", 0);  // all sixteen blocks
  RunToEnd();
  Add(3, {3}, 2, "prefix", 10);
  RunToEnd();
  EXPECT_EQ(num_context_tokens_, 20);
  Add(4, Tokens(29, 200), 2, "", 0);
  RunToEnd();
  Add(5, Tokens(29, 300), 2, "", 0);
  RunToEnd();
  Add(6, {6}, 2, "prefix", 10);
  RunToEnd();
  EXPECT_EQ(num_context_tokens_, 20) << "kept again once it was computed again";
}

TEST_F(ContextTest, ContextsKeepAQuarterOfThePoolAndTheLastUsedOnes) {
  Make(32);
  const auto use = [&](SequenceId id, const std::string& digest) {
    Add(id, {static_cast<int32_t>(id)}, 2, digest, 10);  // three blocks of eight
    RunToEnd();
  };
  use(1, "aa");
  use(2, "bb");
  use(3, "aa");
  use(4, "cc");
  for (SequenceId id = 10; id < 20; ++id) {
    Add(id, Tokens(29, static_cast<int32_t>(50 * id)), 2, "", 0);
    RunToEnd();
  }
  num_context_tokens_ = 0;
  use(20, "aa");
  use(21, "cc");
  EXPECT_EQ(num_context_tokens_, 0);
  use(22, "bb");
  EXPECT_EQ(num_context_tokens_, 10);
}

TEST_F(ContextTest, PreemptedSequenceKeepsNothingOfIt) {
  Make(6);
  Add(1, Tokens(8, 100), 12, "", 0);
  Step();
  const Sequence* young = Add(2, {1, 2, 3}, 4, "prefix", 7);
  Step();
  ASSERT_NE(young->context(), nullptr);
  while (scheduler_->num_preemptions() == 0) {
    ASSERT_FALSE(Step().empty());
  }
  EXPECT_THAT(young->blocks(), IsEmpty());
  EXPECT_EQ(young->context(), nullptr);
  EXPECT_EQ(young->num_context_slots(), 0);
  RunToEnd();
}

TEST_F(ContextTest, PausedUserKeepsItForOthers) {
  Make(32);
  Sequence* first = Add(1, {1}, 4, "prefix", 6);
  Step();
  first->set_paused(true);
  Add(2, {2}, 4, "prefix", 6);
  EXPECT_THAT(Step().contexts, IsEmpty());
  first->set_paused(false);
  RunToEnd();
}

TEST_F(ContextTest, PrefixesOfSequencesAreSharedBehindIt) {
  Make(32);
  Add(1, Tokens(10), 2, "prefix", 6);
  Step();
  const Sequence* second = Add(2, Tokens(10), 2, "prefix", 6);
  const Sequence* other = Add(3, Tokens(10), 2, "", 0);
  const Batch batch = Step();
  EXPECT_EQ(second->num_cached_tokens(), 8);
  EXPECT_EQ(other->num_cached_tokens(), 0) << "other virtual tokens, other keys";
  EXPECT_THAT(batch.contexts, IsEmpty());
  RunToEnd();
}

TEST_F(ContextTest, UsersThatFailTakeItWithThem) {
  Make(32);
  Add(1, {1}, 4, "prefix", 6);
  Add(2, {2}, 4, "prefix", 6);
  Add(3, {3}, 4, "", 0);
  const Batch batch = Schedule();
  EXPECT_THAT(scheduler_->UsersOf(*batch.contexts[0].context), UnorderedElementsAre(1, 2));
  Cancel(1);
  Cancel(2);
  scheduler_->Commit(batch, std::vector<SampledToken>(3), absl::UnixEpoch());
  EXPECT_EQ(pool_->num_cached(), 0) << "nothing of what failed is found again";
  EXPECT_EQ(scheduler_->sequences().size(), 1u);
}

TEST_F(ContextTest, LostStepIsPlannedAgain) {
  Make(32);
  Add(1, {1}, 4, "prefix", 6);
  EXPECT_EQ(Schedule().num_context_tokens, 6);
  EXPECT_EQ(Schedule().num_context_tokens, 6);
  RunToEnd();
}

TEST_F(ContextTest, CountsInTheContextLengthAndInTheMemory) {
  Make(8);
  EXPECT_TRUE(scheduler_->Fits(15, 5, 10));
  EXPECT_FALSE(scheduler_->Fits(20, 5, 10)) << "three blocks and six";
  Make(64);
  EXPECT_FALSE(scheduler_->Fits(4, 1, 60));
  EXPECT_TRUE(scheduler_->Fits(3, 100, 60));
  const Sequence* sequence = Add(1, {1, 2}, 100, "prefix", 60);
  for (int i = 0; i < 2; ++i) {
    Step();
  }
  EXPECT_EQ(sequence->finish_reason(), FinishReason::kContextLength);
  EXPECT_THAT(sequence->tokens(), ::testing::SizeIs(4));
}

}  // namespace
}  // namespace tenon
