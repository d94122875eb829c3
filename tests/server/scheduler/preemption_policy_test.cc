// The choice alone; what follows from it is in scheduler_room_test.cc.
#include "server/scheduler/preemption_policy.h"

#include <gtest/gtest.h>

#include "tests/server/scheduler/scheduler_fixture.h"

namespace tenon {
namespace {

/// Sequences of one tenant, which hold no blocks: they differ in priority and in being paused.
class PreemptionPolicyTest : public ::testing::Test {
 protected:
  Sequence* Run(SequenceId id, int32_t priority) {
    Sequence::Options options = SequenceOptions(id, Tokens(4), 4);
    options.priority = priority;
    running_.push_back(std::make_unique<Sequence>(std::move(options)));
    return running_.back().get();
  }

  BlockPool pool_{8, 4};
  FairShare fair_;
  KvShares kv_shares_{&pool_, &fair_};
  std::vector<std::unique_ptr<Sequence>> running_;
  PreemptionPolicy policy_{true, &running_, &pool_, &kv_shares_};
};

TEST_F(PreemptionPolicyTest, LowestPriorityOfATenantLosesFirst) {
  Sequence* oldest = Run(1, -2);
  Run(2, 0);
  Sequence* lowest = Run(3, -1);
  Sequence* wants = Run(4, 1);
  EXPECT_EQ(policy_.FindVictim(*wants, 1, oldest), lowest);
  EXPECT_EQ(policy_.FindOwnVictim(*wants, 1, oldest), lowest);
}

TEST_F(PreemptionPolicyTest, NobodyTakesFromAHigherPriority) {
  Sequence* oldest = Run(1, -2);
  Run(2, 1);
  Sequence* wants = Run(3, 0);
  EXPECT_EQ(policy_.FindVictim(*wants, 1, oldest), nullptr);
}

TEST_F(PreemptionPolicyTest, OldestTakesFromAnybody) {
  Sequence* oldest = Run(1, -2);
  Sequence* other = Run(2, 2);
  EXPECT_EQ(policy_.FindVictim(*oldest, 1, oldest), other);
}

TEST_F(PreemptionPolicyTest, BlockedOneLosesBeforeAnyPriority) {
  Sequence* oldest = Run(1, 0);
  Sequence* paused = Run(2, 2);
  paused->set_paused(true);
  Run(3, -2);
  EXPECT_EQ(policy_.FindVictim(*oldest, 1, oldest), paused);
  EXPECT_EQ(policy_.FindOwnVictim(*oldest, 1, oldest), paused);
}

TEST_F(PreemptionPolicyTest, BlocksArePromisedToTokensWithoutAny) {
  Run(1, 0);
  Run(2, 0)->set_paused(true);  // computes nothing meanwhile
  const Sequence* wants = Run(3, 0);
  EXPECT_EQ(policy_.NumPromisedBlocks(*wants, 1, nullptr), 2);  // for four tokens each: 1 and 3
}

}  // namespace
}  // namespace tenon
