#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <map>

#include "tests/benchmark/serving/report.h"
#include "tests/benchmark/serving/workload.h"

namespace tenon::benchmark {
namespace {

using ::testing::ElementsAre;

TEST(WorkloadTest, SameSeedSameRequests) {
  const WorkloadOptions options{.num_requests = 5, .vocab_size = 100, .adapters = {"a", "b"}};
  const auto first = MakeWorkload(options);
  const auto second = MakeWorkload(options);
  ASSERT_EQ(first.size(), 5);
  for (size_t i = 0; i < first.size(); ++i) {
    EXPECT_EQ(first[i].prompt, second[i].prompt);
    EXPECT_EQ(first[i].adapter, i % 2 == 0 ? "a" : "b");
  }
}

TEST(WorkloadTest, ZipfPrefersTheFirst) {
  std::map<std::string, int> counts;
  for (const BenchmarkRequest& request : MakeWorkload({.num_requests = 2000,
                                                       .prompt_tokens = 1,
                                                       .vocab_size = 2,
                                                       .adapters = {"a", "b", "c"},
                                                       .zipf_exponent = 1.0})) {
    ++counts[request.adapter];
  }
  EXPECT_NEAR(counts["a"], 2000 * 6.0 / 11, 100);
  EXPECT_NEAR(counts["b"], 2000 * 3.0 / 11, 100);
  EXPECT_NEAR(counts["c"], 2000 * 2.0 / 11, 100);
}

TEST(WorkloadTest, PoissonArrivalsHaveTheRate) {
  WorkloadOptions options;
  options.num_requests = 2001;
  options.prompt_tokens = 1;
  options.vocab_size = 2;
  options.requests_per_second = 10;
  const auto requests = MakeWorkload(options);
  EXPECT_EQ(requests.front().arrival, absl::ZeroDuration());
  EXPECT_NEAR(absl::ToDoubleSeconds(requests.back().arrival), 200, 15);
}

TEST(WorkloadTest, BadLineIsNamed) {
  const std::string path = testing::TempDir() + "/workload.jsonl";
  std::ofstream(path) << R"({"prompt_tokens":[1,2],"adapter":"a","output_tokens":3})"
                      << "\n{}\n";
  EXPECT_EQ(ReadWorkload(path).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(ReadWorkload(path).status().message().find("workload.jsonl:2"), std::string::npos);
}

TEST(WorkloadTest, TextAndArrivalAreReadWhereTheyAre) {
  const std::string path = testing::TempDir() + "/text.jsonl";
  std::ofstream(path) << R"({"prompt_tokens":[1],"adapter":"","output_tokens":1})"
                      << "\n"
                      << R"({"prompt":"hi","adapter":"","output_tokens":1,"arrival_s":0.5})"
                      << "\n";
  const absl::StatusOr<std::vector<BenchmarkRequest>> requests = ReadWorkload(path);
  ASSERT_TRUE(requests.ok()) << requests.status();
  EXPECT_EQ((*requests)[0].text, "");
  EXPECT_EQ((*requests)[0].arrival, absl::ZeroDuration());
  EXPECT_EQ((*requests)[1].text, "hi");
  EXPECT_EQ((*requests)[1].arrival, absl::Milliseconds(500));
}

TEST(PercentilesTest, AreNearestRank) {
  std::vector<absl::Duration> values;
  for (int i = 100; i >= 1; --i) {
    values.push_back(absl::Milliseconds(i));
  }
  const Percentiles p = ComputePercentiles(values);
  EXPECT_DOUBLE_EQ(p.p50_ms, 50);
  EXPECT_DOUBLE_EQ(p.p90_ms, 90);
  EXPECT_DOUBLE_EQ(p.p99_ms, 99);
  EXPECT_DOUBLE_EQ(p.mean_ms, 50.5);
  EXPECT_DOUBLE_EQ(ComputePercentiles({absl::Milliseconds(7)}).p99_ms, 7);
  EXPECT_DOUBLE_EQ(ComputePercentiles({}).p50_ms, 0);
}

TEST(ReportTest, FailedRequestsCountNoLatency) {
  RunOutcome run;
  run.wall = absl::Seconds(2);
  run.requests.push_back({.status = absl::OkStatus(),
                          .first_token = absl::Milliseconds(10),
                          .total = absl::Milliseconds(20),
                          .sent = {},
                          .token_times = {},
                          .inter_token = {absl::Milliseconds(10)},
                          .tokens = {1, 2}});
  run.requests.push_back({.status = absl::UnavailableError("gone"),
                          .first_token = {},
                          .total = {},
                          .sent = {},
                          .token_times = {},
                          .inter_token = {},
                          .tokens = {3}});
  const Report report = MakeReport(run);
  EXPECT_EQ(report.num_failed, 1);
  EXPECT_DOUBLE_EQ(report.output_tokens_per_s, 1.5);
  EXPECT_DOUBLE_EQ(report.requests_per_s, 0.5);
  EXPECT_DOUBLE_EQ(report.first_token.p50_ms, 10);
  EXPECT_THAT(report.errors, ElementsAre("UNAVAILABLE: gone"));
  EXPECT_EQ(ToJson(report)["failed"], 1);
}

}  // namespace
}  // namespace tenon::benchmark
