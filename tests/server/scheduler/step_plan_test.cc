#include "server/scheduler/step_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/server/scheduler/scheduler_fixture.h"

namespace tenon {
namespace {

using ::testing::ElementsAre;
using ::testing::UnorderedElementsAre;

class StepPlanTest : public ::testing::Test {
 protected:
  StepPlan PlanOf(const std::vector<Sequence*>& active = {}) {
    return StepPlan(1, absl::UnixEpoch(), 16, active);
  }
  /// Gives it a row as Scheduler does.
  static void AddRow(Sequence* sequence, int64_t num_tokens, StepPlan& plan) {
    plan.rows.push_back({sequence, num_tokens});
    plan.tokens_left -= num_tokens;
  }

  Sequence first_{SequenceOptions(1, Tokens(6), 4)};
  Sequence second_{SequenceOptions(2, Tokens(3), 4, "aa")};
  Sequence third_{SequenceOptions(3, Tokens(2), 4)};
};

TEST_F(StepPlanTest, BeginsWithTheOldestOfTheActiveOnes) {
  const StepPlan plan = PlanOf({&second_, &first_});
  EXPECT_EQ(plan.oldest, &second_);
  EXPECT_EQ(plan.total_active, 2);
  EXPECT_EQ(plan.tokens_left, 16);
  EXPECT_EQ(PlanOf().oldest, nullptr);
}

TEST_F(StepPlanTest, PlacesAreRowsAndPrefills) {
  StepPlan plan = PlanOf();
  AddRow(&first_, 6, plan);
  plan.prefills = {&second_, &third_};
  EXPECT_EQ(plan.num_places(), 3);
  EXPECT_THAT(plan.placed(), UnorderedElementsAre(&first_, &second_, &third_));
  EXPECT_EQ(plan.NumPrefillTokens(), 5);
}

TEST_F(StepPlanTest, DroppedRowGivesItsTokensBack) {
  StepPlan plan = PlanOf();
  AddRow(&first_, 6, plan);
  plan.prefills = {&second_};
  plan.DropPlace(&second_);
  EXPECT_EQ(plan.tokens_left, 10);
  plan.DropPlace(&first_);
  EXPECT_EQ(plan.tokens_left, 16);
  plan.DropPlace(&third_);  // had none
  EXPECT_EQ(plan.num_places(), 0);
}

TEST_F(StepPlanTest, DroppedContextGivesItsTokensBack) {
  StepPlan plan = PlanOf();
  const auto context = std::make_shared<const Context>(PrefixChain{}, SelectionOf("aa", 3), 4);
  plan.contexts.push_back({context, 3});
  plan.tokens_left -= 3;
  EXPECT_EQ(plan.FindContext(*context)->num_tokens, 3);
  plan.DropContext(*context);
  EXPECT_EQ(plan.tokens_left, 16);
  EXPECT_TRUE(plan.FindContext(*context) == plan.contexts.end());
}

TEST_F(StepPlanTest, RowsThatReachTheLastTokenSample) {
  StepPlan plan = PlanOf();
  AddRow(&first_, 5, plan);
  AddRow(&third_, 2, plan);
  const Batch batch = plan.Build({});
  ASSERT_EQ(batch.rows.size(), 2u);
  EXPECT_FALSE(batch.rows[0].samples);
  EXPECT_TRUE(batch.rows[1].samples);
}

TEST_F(StepPlanTest, MergedRowsStandLastInSegmentsOfTheirOwn) {
  StepPlan plan = PlanOf();
  Sequence merged(SequenceOptions(4, Tokens(2), 4, "aa"));
  merged.set_merged(true);
  for (Sequence* sequence : {&merged, &second_, &third_, &first_}) {
    AddRow(sequence, 1, plan);
  }
  const Batch batch = plan.Build({});
  std::vector<const Sequence*> order;
  for (const BatchRow& row : batch.rows) {
    order.push_back(row.sequence);
  }
  EXPECT_THAT(order, ElementsAre(&first_, &third_, &second_, &merged));
  ASSERT_EQ(batch.segments.size(), 3u);
  EXPECT_EQ(batch.segments[0].row_end, 2);
  EXPECT_FALSE(batch.segments[1].merged);
  EXPECT_TRUE(batch.segments[2].merged);
  EXPECT_EQ(batch.segments[2].token_end, batch.num_tokens);
}

}  // namespace
}  // namespace tenon
