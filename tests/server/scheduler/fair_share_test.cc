#include "server/scheduler/fair_share.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace tenon {
namespace {

using Flow = FairShare::Flow;

TenantShare Weight(double weight) { return {.weight = weight, .kv_percent = 0}; }

/// Serves the first of `flows` in fair order, all of which want more, `count` times.
std::map<Flow*, double> Serve(FairShare& fair, const std::vector<Flow*>& flows, int count,
                              double cost = 1) {
  std::map<Flow*, double> served;
  for (int i = 0; i < count; ++i) {
    Flow* const next = *std::min_element(flows.begin(), flows.end(),
                                         [&](Flow* a, Flow* b) { return fair.Before(*a, *b); });
    fair.Charge(next, cost);
    served[next] += cost;
    fair.Settle(flows);
  }
  return served;
}

TEST(FairShareTest, EqualTenantsTakeTurnsInTheOrderOfTheirComing) {
  FairShare fair;
  Flow* const a = fair.Join("a", {}, 0, "");
  Flow* const b = fair.Join("b", {}, 0, "");
  EXPECT_TRUE(fair.Before(*a, *b));
  EXPECT_FALSE(fair.Before(*b, *a));
  EXPECT_FALSE(fair.Before(*a, *a));
  fair.Charge(a, 1);
  EXPECT_TRUE(fair.Before(*b, *a));
}

TEST(FairShareTest, ServiceIsInProportionToWeight) {
  FairShare fair;
  Flow* const one = fair.Join("one", Weight(1), 0, "");
  Flow* const four = fair.Join("four", Weight(4), 0, "");
  auto served = Serve(fair, {one, four}, 1000);
  EXPECT_NEAR(served[four] / served[one], 4, 0.05);
}

TEST(FairShareTest, WeightOfTheLatestRequestHolds) {
  FairShare fair;
  Flow* const a = fair.Join("a", Weight(1), 0, "");
  Flow* const b = fair.Join("b", Weight(1), 0, "");
  EXPECT_EQ(fair.Join("a", Weight(3), 0, ""), a);
  EXPECT_EQ(fair.total_weight(), 4);
  auto served = Serve(fair, {a, b}, 1000);
  EXPECT_NEAR(served[a] / served[b], 3, 0.05);
}

TEST(FairShareTest, PrioritiesShareByPowersOfFour) {
  FairShare fair;
  Flow* const high = fair.Join("a", {}, 1, "");
  Flow* const low = fair.Join("a", {}, 0, "");
  EXPECT_TRUE(fair.Before(*high, *low));
  auto served = Serve(fair, {low, high}, 1000);
  EXPECT_NEAR(served[high] / served[low], kPriorityFactor, 0.1);
}

TEST(FairShareTest, SelectionsOfOnePriorityShareEqually) {
  FairShare fair;
  Flow* const x = fair.Join("a", {}, 0, "x");
  Flow* const y = fair.Join("a", {}, 0, "y");
  Flow* const other = fair.Join("b", {}, 0, "x");
  auto served = Serve(fair, {x, y, other}, 1000);
  EXPECT_NEAR(served[x], 250, 2);
  EXPECT_NEAR(served[y], 250, 2);
  EXPECT_NEAR(served[other], 500, 2);
}

TEST(FairShareTest, NewcomerBeginsAtTheLeastServedOfThoseWhoWait) {
  FairShare fair;
  Flow* const a = fair.Join("a", {}, 0, "");
  Serve(fair, {a}, 100);
  Flow* const b = fair.Join("b", {}, 0, "");
  auto served = Serve(fair, {a, b}, 100);
  EXPECT_NEAR(served[a], 50, 1);
}

TEST(FairShareTest, WhoHadAllThatHeWantedIsLifted) {
  FairShare fair;
  Flow* const busy = fair.Join("busy", {}, 0, "");
  Flow* const modest = fair.Join("modest", {}, 0, "");
  for (int i = 0; i < 100; ++i) {
    fair.Charge(busy, 10);
    fair.Charge(modest, 1);
    fair.Settle(std::vector<Flow*>{busy});
  }
  auto served = Serve(fair, {busy, modest}, 100);  // now it wants more
  EXPECT_NEAR(served[modest], 50, 1) << "it claims what it did not want before";
}

TEST(FairShareTest, WhereNobodyWaitsNobodyHasAClaim) {
  FairShare fair;
  Flow* const busy = fair.Join("busy", {}, 0, "");
  Flow* const modest = fair.Join("modest", {}, 0, "");
  fair.Charge(busy, 1000);
  fair.Charge(modest, 1);
  fair.Settle({});
  EXPECT_EQ(fair.tenant_counter(*busy), fair.tenant_counter(*modest));
}

TEST(FairShareTest, DebtSurvivesComingAndGoing) {
  FairShare fair;
  Flow* const steady = fair.Join("steady", {}, 0, "");
  Flow* greedy = fair.Join("greedy", {}, 0, "");
  fair.Charge(greedy, 50);
  fair.Settle(std::vector<Flow*>{steady});
  fair.Leave(greedy);
  greedy = fair.Join("greedy", {}, 0, "");
  auto served = Serve(fair, {steady, greedy}, 50);
  EXPECT_EQ(served[greedy], 0) << "leaving washes away what it had";
}

TEST(FairShareTest, ForgetsThoseWhoOweNothing) {
  FairShare fair;
  Flow* const steady = fair.Join("steady", {}, 0, "");
  for (int i = 0; i < 10'000; ++i) {
    Flow* const passing = fair.Join(absl::StrCat("t", i), {}, 0, absl::StrCat("adapter", i));
    fair.Charge(passing, 1);
    fair.Charge(steady, 1);
    fair.Settle(std::vector<Flow*>{steady});
    fair.Leave(passing);
  }
  EXPECT_LT(fair.num_members(), 1000);
  fair.Leave(steady);
}

TEST(FairShareTest, DisabledItIsOneFlow) {
  FairShare fair(/*enabled=*/false);
  Flow* const a = fair.Join("a", Weight(1), 0, "x");
  EXPECT_EQ(fair.Join("b", Weight(9), 2, "y"), a);
  fair.Leave(a);
  fair.Charge(a, 5);
  fair.Settle(std::vector<Flow*>{a});
}

// Whoever wants more than he gets has, per weight, as much as any other of these but for one cost.
TEST(FairShareTest, CountersOfThoseWhoWaitStayTogether) {
  std::mt19937_64 random(20240100588);
  const auto draw = [&](int low, int high) {
    return std::uniform_int_distribution<int>(low, high)(random);
  };
  FairShare fair;
  std::vector<Flow*> hungry;
  for (int i = 0; i < 5; ++i) {
    hungry.push_back(fair.Join(absl::StrCat("hungry", i), Weight(draw(1, 9)), 0, ""));
  }
  constexpr double kMaxCost = 64;
  for (int step = 0; step < 20'000; ++step) {
    Flow* guest = nullptr;
    if (draw(0, 2) == 0) {
      guest = fair.Join(absl::StrCat("guest", draw(0, 30)), Weight(draw(1, 9)), draw(-2, 2),
                        absl::StrCat(draw(0, 3)));
      fair.Charge(guest, draw(1, 64));
    }
    Flow* const next = *std::min_element(hungry.begin(), hungry.end(),
                                         [&](Flow* a, Flow* b) { return fair.Before(*a, *b); });
    fair.Charge(next, draw(1, 64));
    fair.Settle(hungry);
    double least = 1e300, most = 0;
    for (const Flow* flow : hungry) {
      least = std::min(least, fair.tenant_counter(*flow));
      most = std::max(most, fair.tenant_counter(*flow));
    }
    ASSERT_LE(most - least, kMaxCost) << "step " << step;
    if (guest != nullptr) {
      fair.Leave(guest);
    }
  }
}

}  // namespace
}  // namespace tenon
