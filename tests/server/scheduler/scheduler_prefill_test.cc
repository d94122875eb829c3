// How the tokens of a step are shared between decodes and prompts.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/scheduler/scheduler.h"
#include "tests/server/scheduler/scheduler_fixture.h"

namespace tenon {
namespace {

using ::testing::ElementsAre;

class SchedulerPrefillTest : public SchedulerFixture {};

TEST_F(SchedulerPrefillTest, LongPromptIsPrefilledInChunksAndSamplesInTheLast) {
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

TEST_F(SchedulerPrefillTest, DecodesComeBeforePrefillChunks) {
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

TEST_F(SchedulerPrefillTest, PrefillBesideDecodesIsBounded) {
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

TEST_F(SchedulerPrefillTest, PrefillWithoutDecodesTakesTheWholeStep) {
  SchedulerOptions options = Options();
  options.prefill_chunk_tokens = 5;
  Make(32, options);
  Add(1, Tokens(12, 100), 8);
  Add(2, Tokens(12, 200), 8);
  EXPECT_EQ(Step().num_tokens, 16);
}

TEST_F(SchedulerPrefillTest, EachOfUpToEightPromptsAddsAChunk) {
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

TEST_F(SchedulerPrefillTest, ManyDecodesAllowAPromptTokenEach) {
  SchedulerOptions options = Options();
  options.prefill_chunk_tokens = 2;
  Make(32, options);
  for (SequenceId id = 1; id <= 3; ++id) {
    Add(id, {1, 2}, 8);
  }
  Step();
  Add(4, Tokens(12, 100), 8);
  EXPECT_EQ(Step().rows[3].num_tokens, 3);
}

}  // namespace
}  // namespace tenon
