// What sequences find of the prompts of others.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "server/scheduler/scheduler.h"
#include "tests/server/scheduler/scheduler_fixture.h"

namespace tenon {
namespace {

using ::testing::ElementsAre;

class SchedulerPrefixTest : public SchedulerFixture {};

TEST_F(SchedulerPrefixTest, SecondSequenceSharesFullBlocksOfTheSamePrompt) {
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

TEST_F(SchedulerPrefixTest, LastPromptTokenIsAlwaysComputed) {
  Make(16);
  Add(1, Tokens(8), 4);
  Step();
  Sequence* second = Add(2, Tokens(8), 4);
  Step();
  EXPECT_EQ(second->num_cached_tokens(), 4);
  EXPECT_EQ(second->num_generated_tokens(), 1);
}

TEST_F(SchedulerPrefixTest, FinishedSequenceLeavesItsPrefixBehind) {
  Make(16);
  Add(1, Tokens(8), 1);
  Step();
  EXPECT_EQ(pool_->num_used(), 0);
  EXPECT_EQ(pool_->num_cached(), 2);
  Sequence* second = Add(2, Tokens(12), 1);
  Step();
  EXPECT_EQ(second->num_cached_tokens(), 8);
}

TEST_F(SchedulerPrefixTest, GeneratedTokensAreFoundByTheNextTurn) {
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

TEST_F(SchedulerPrefixTest, NoSharingAcrossTenantsOrSelections) {
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

TEST_F(SchedulerPrefixTest, PromptLogprobsComputeTheWholePrompt) {
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

TEST_F(SchedulerPrefixTest, PrefixCacheCanBeTurnedOff) {
  SchedulerOptions options = Options();
  options.prefix_cache = false;
  Make(16, options);
  Add(1, Tokens(8), 1);
  Step();
  EXPECT_EQ(pool_->num_cached(), 0);
}

TEST_F(SchedulerPrefixTest, SiblingsWaitForTheirLeadersPromptAndShareIt) {
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

TEST_F(SchedulerPrefixTest, SiblingsOfAnEndedLeaderGoOnAlone) {
  Make(32);
  Add(1, Tokens(20), 4);
  Sequence::Options options = SequenceOptions(2, Tokens(20), 4);
  options.leader = 1;
  Add(std::move(options));
  Step();
  scheduler_->Finish(1, FinishReason::kCancelled, At(0));
  EXPECT_THAT(Ids(Step()), ElementsAre(2));
}

TEST_F(SchedulerPrefixTest, SharedModeFindsOtherTenantsPrefixesOfTheBaseOnly) {
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

TEST_F(SchedulerPrefixTest, DeterministicRequestsShareWithTheirLikeOnly) {
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
