// Tenants against each other, in simulated time: what a noisy one does to quiet ones, and does not.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <iostream>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "tests/server/scheduler/traffic_simulation.h"

namespace tenon {
namespace {

constexpr int kNumQuiet = 9;
// Generated tokens a second with all rows taken: 32 rows, each step 2 ms and 50 us for each of its
// 32 decoded tokens and, on average, 32 prompt tokens. NoisyTenant... checks it.
constexpr double kCapacity = 6150;

TrafficSimulation::Options OptionsOf(bool fair) {
  TrafficSimulation::Options options;
  options.scheduler = TrafficSimulation::SchedulerDefaults(fair);
  return options;
}

TrafficClass ClassOf(const std::string& tenant, double requests_per_second) {
  TrafficClass kind;
  kind.tenant = tenant;
  kind.requests_per_second = requests_per_second;
  return kind;
}

double TokensPerSecond(const TrafficSimulation& simulation, size_t index) {
  return static_cast<double>(simulation.result(index).generated_tokens) / simulation.seconds();
}

struct Quiet {
  double p50 = 0, p99 = 0;               // time to first token, seconds
  double least_tokens_per_second = 1e9;  // of one tenant
  double noisy_tokens_per_second = 0, total_tokens_per_second = 0;
};

// Nine that ask for half of their share each, and one that asks for `noise` shares.
Quiet Measure(const std::string& name, bool fair, double noise) {
  const double share = kCapacity / (kNumQuiet + 1) / 32;  // requests a second
  std::vector<TrafficClass> classes;
  for (int i = 0; i < kNumQuiet; ++i) {
    classes.push_back(ClassOf(absl::StrCat("quiet-", i), 0.5 * share));
  }
  classes.push_back(ClassOf("noisy", noise * share));
  TrafficSimulation simulation(OptionsOf(fair), classes);
  simulation.Run();
  Quiet quiet;
  std::vector<double> ttfts;
  for (int i = 0; i < kNumQuiet; ++i) {
    const std::vector<double>& mine = simulation.result(i).ttft_seconds;
    ttfts.insert(ttfts.end(), mine.begin(), mine.end());
    quiet.least_tokens_per_second =
        std::min(quiet.least_tokens_per_second, TokensPerSecond(simulation, i));
  }
  quiet.p50 = Percentile(ttfts, 0.5);
  quiet.p99 = Percentile(ttfts, 0.99);
  quiet.noisy_tokens_per_second = TokensPerSecond(simulation, kNumQuiet);
  quiet.total_tokens_per_second =
      static_cast<double>(simulation.total_generated_tokens()) / simulation.seconds();
  std::cout << absl::StreamFormat(
      "%-26s quiet: ttft p50 %.1f ms, p99 %.1f ms, least %.0f tokens/s; noisy %.0f, total %.0f "
      "tokens/s\n",
      name, quiet.p50 * 1e3, quiet.p99 * 1e3, quiet.least_tokens_per_second,
      quiet.noisy_tokens_per_second, quiet.total_tokens_per_second);
  return quiet;
}

TEST(FairnessTest, NoisyTenantHarmsNobodyButItself) {
  const Quiet alone = Measure("without the noisy one", true, 0);
  const Quiet fair = Measure("fair shares", true, 20);
  const Quiet unfair = Measure("first come, first served", false, 20);
  EXPECT_LE(fair.p99, 2 * alone.p99);
  // What they ask for is below their share: they get it, and the noisy one all the rest.
  EXPECT_GE(fair.least_tokens_per_second, 0.95 * alone.least_tokens_per_second);
  EXPECT_NEAR(fair.total_tokens_per_second, kCapacity, 0.05 * kCapacity);
  EXPECT_GE(fair.total_tokens_per_second, 0.95 * unfair.total_tokens_per_second);
  // The same traffic shows the harm where nothing is shared fairly.
  EXPECT_GE(unfair.p99, 20 * alone.p99);
}

TEST(FairnessTest, TenantsThatAllWantMoreGetEqualParts) {
  std::vector<TrafficClass> classes;
  for (int i = 0; i < kNumQuiet + 1; ++i) {
    classes.push_back(ClassOf(absl::StrCat("t", i), i == 0 ? 400 : 30));  // their share is 19
  }
  TrafficSimulation simulation(OptionsOf(true), classes);
  simulation.Run();
  const double mean = static_cast<double>(simulation.total_generated_tokens()) /
                      simulation.seconds() / static_cast<double>(classes.size());
  for (size_t i = 0; i < classes.size(); ++i) {
    EXPECT_NEAR(TokensPerSecond(simulation, i), mean, 0.05 * mean) << i;
  }
}

TEST(FairnessTest, WeightsDivideTheTokens) {
  std::vector<TrafficClass> classes;
  for (const double weight : {1.0, 2.0, 4.0}) {
    classes.push_back(ClassOf(absl::StrCat("t", weight), 300));
    classes.back().weight = weight;
  }
  TrafficSimulation simulation(OptionsOf(true), classes);
  simulation.Run();
  const double total = static_cast<double>(simulation.total_generated_tokens());
  for (size_t i = 0; i < classes.size(); ++i) {
    const double part = static_cast<double>(simulation.result(i).generated_tokens) / total;
    std::cout << absl::StreamFormat("weight %.0f: %.4f of the tokens, wanted %.4f\n",
                                    classes[i].weight, part, classes[i].weight / 7);
    EXPECT_NEAR(part, classes[i].weight / 7, 0.05 * classes[i].weight / 7);
  }
}

TEST(FairnessTest, LongPromptsCountAsWhatTheyCost) {
  // Both get the same service: one spends it on prompts, the other on answers.
  std::vector<TrafficClass> classes = {ClassOf("reads", 100), ClassOf("writes", 300)};
  classes[0].prompt_tokens = 400;
  classes[0].max_tokens = 8;
  classes[1].prompt_tokens = 8;
  classes[1].max_tokens = 64;
  TrafficSimulation::Options options = OptionsOf(true);
  options.scheduler.max_batch_tokens = 64;  // so that prompts and answers compete for tokens
  TrafficSimulation simulation(options, classes);
  simulation.Run();
  const auto cost = [&](size_t i) {
    const double requests =
        static_cast<double>(simulation.result(i).generated_tokens) / classes[i].max_tokens;
    // The last token of an answer is never computed.
    return requests *
           (static_cast<double>(classes[i].prompt_tokens) + 2.0 * (classes[i].max_tokens - 1));
  };
  EXPECT_NEAR(cost(0) / cost(1), 1.0, 0.05);
}

TEST(FairnessTest, RecomputedWorkIsNotChargedAgain) {
  // A pool so small that sequences are preempted all the time: shares stay equal, although the work
  // that is done twice is not.
  std::vector<TrafficClass> classes = {ClassOf("a", 200), ClassOf("b", 200)};
  classes[0].prompt_tokens = 100;
  classes[1].prompt_tokens = 100;
  TrafficSimulation::Options options = OptionsOf(true);
  options.num_blocks = 60;
  TrafficSimulation simulation(options, classes);
  simulation.Run();
  EXPECT_GT(simulation.num_preemptions(), 50);
  const double ratio = TokensPerSecond(simulation, 0) / TokensPerSecond(simulation, 1);
  EXPECT_NEAR(ratio, 1.0, 0.05);
}

TEST(FairnessTest, TenantThatWasAwayHasNoClaim) {
  std::vector<TrafficClass> classes = {ClassOf("always", 300), ClassOf("late", 300)};
  classes[1].begin = absl::Seconds(5);  // as the measurement begins
  TrafficSimulation::Options options = OptionsOf(true);
  options.measured = absl::Seconds(10);
  TrafficSimulation simulation(options, classes);
  simulation.Run();
  // With a claim of five seconds' service it would be served alone for as long.
  EXPECT_NEAR(TokensPerSecond(simulation, 0) / TokensPerSecond(simulation, 1), 1.0, 0.1);
}

TEST(FairnessTest, AdaptersOfOneTenantShareEqually) {
  std::vector<TrafficClass> classes = {ClassOf("acme", 400), ClassOf("acme", 40),
                                       ClassOf("other", 400)};
  classes[0].adapter = "popular";
  classes[1].adapter = "rare";  // asks for less than its quarter of the whole, 48 requests a second
  TrafficSimulation simulation(OptionsOf(true), classes);
  simulation.Run();
  const double acme = TokensPerSecond(simulation, 0) + TokensPerSecond(simulation, 1);
  EXPECT_NEAR(acme / TokensPerSecond(simulation, 2), 1.0, 0.05) << "adapters earn nothing";
  EXPECT_NEAR(TokensPerSecond(simulation, 1), 40 * 32, 0.1 * 40 * 32);
}

TEST(FairnessTest, PrioritiesCountWithinTheirTenantOnly) {
  std::vector<TrafficClass> classes = {ClassOf("acme", 300), ClassOf("acme", 300),
                                       ClassOf("other", 300)};
  classes[0].priority = 1;
  TrafficSimulation simulation(OptionsOf(true), classes);
  simulation.Run();
  const double high = TokensPerSecond(simulation, 0), low = TokensPerSecond(simulation, 1);
  EXPECT_NEAR(high / low, kPriorityFactor, 0.1 * kPriorityFactor) << "the lower one starves not";
  EXPECT_NEAR((high + low) / TokensPerSecond(simulation, 2), 1.0, 0.05);
}

TEST(FairnessTest, KvLimitHoldsOnAnIdleServer) {
  std::vector<TrafficClass> classes = {ClassOf("acme", 300)};
  classes[0].kv_percent = 10;  // of 100 blocks: two sequences of 4 blocks
  TrafficSimulation::Options options = OptionsOf(true);
  options.num_blocks = 100;
  TrafficSimulation simulation(options, classes);
  simulation.Run();
  const double limited = TokensPerSecond(simulation, 0);
  classes[0].kv_percent = 0;
  TrafficSimulation free(options, classes);
  free.Run();
  EXPECT_LT(limited, 0.5 * TokensPerSecond(free, 0));
  EXPECT_GT(limited, 0);
}

TEST(FairnessTest, ExpectedWaitsAreWhatTenantsThenWait) {
  std::vector<TrafficClass> classes = {ClassOf("quiet", 5), ClassOf("noisy", 300)};
  TrafficSimulation simulation(OptionsOf(true), classes);
  simulation.Run();
  for (const auto& [expected, actual] : simulation.result(0).waits) {
    ASSERT_LT(expected, 0.05) << "the quiet one is told what the noisy one waits";
  }
  std::vector<double> ratios;
  for (const auto& [expected, actual] : simulation.result(1).waits) {
    ratios.push_back(expected / actual);
  }
  std::cout << absl::StreamFormat("expected / actual wait: p5 %.2f, p50 %.2f, p95 %.2f\n",
                                  Percentile(ratios, 0.05), Percentile(ratios, 0.5),
                                  Percentile(ratios, 0.95));
  EXPECT_NEAR(Percentile(ratios, 0.5), 1.0, 0.1);
  EXPECT_GT(Percentile(ratios, 0.05), 0.5);
  EXPECT_LT(Percentile(ratios, 0.95), 2.0);
}

TEST(FairnessTest, WhatCannotStartInTimeDoesNotWaitForItsDeadline) {
  std::vector<TrafficClass> classes = {ClassOf("hurried", 300)};
  classes[0].deadline = absl::Milliseconds(300);  // 200 in the queue wait for about a second
  TrafficSimulation simulation(OptionsOf(true), classes);
  simulation.Run();
  const TrafficResult& result = simulation.result(0);
  EXPECT_GT(result.num_late, 100);
  EXPECT_NEAR(TokensPerSecond(simulation, 0), kCapacity, 0.05 * kCapacity);
  for (const auto& [expected, actual] : result.waits) {
    ASSERT_LT(actual, 2 * 0.3) << "what is served after its deadline is served in vain";
  }
}

}  // namespace
}  // namespace tenon
