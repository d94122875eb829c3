#include "server/telemetry/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"

namespace tenon {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

class MetricsTest : public testing::Test {
 protected:
  MetricsTest() : metrics_({"0.1.0", "tiny", "bf16", "cpu", 64, 16}, [this] { return now_; }) {}

  std::string Render() { return metrics_.Render(reading_); }

  absl::Time now_ = absl::FromUnixSeconds(1'700'000'000);
  ServerReading reading_;
  ServerMetrics metrics_;
};

int CountSeries(const std::string& text, const std::string& name) {
  int count = 0;
  for (size_t at = text.find(absl::StrCat("\n", name, "{")); at != std::string::npos;
       at = text.find(absl::StrCat("\n", name, "{"), at + 1)) {
    ++count;
  }
  return count;
}

TEST_F(MetricsTest, BuildInfoSaysWhatRuns) {
  EXPECT_THAT(
      Render(),
      HasSubstr(R"(tenon_build_info{device="cpu",dtype="bf16",model="tiny",version="0.1.0"} 1)"));
}

TEST_F(MetricsTest, CallsAreCountedByMethodAndOutcome) {
  metrics_.RecordCall("Generate", "ok");
  metrics_.RecordCall("Generate", "ok");
  metrics_.RecordCall("Generate", "cancelled");
  const std::string text = Render();
  EXPECT_THAT(text, HasSubstr(R"(tenon_requests_total{method="Generate",outcome="ok"} 2)"));
  EXPECT_THAT(text, HasSubstr(R"(tenon_requests_total{method="Generate",outcome="cancelled"} 1)"));
}

TEST_F(MetricsTest, LevelsFollowTheReading) {
  reading_.num_running = 3;
  reading_.num_waiting = 2;
  EXPECT_THAT(Render(), HasSubstr("\ntenon_sequences_running 3\n"));
  reading_.num_running = 0;
  const std::string text = Render();
  EXPECT_THAT(text, HasSubstr("\ntenon_sequences_running 0\n"));
  EXPECT_THAT(text, HasSubstr("\ntenon_sequences_waiting 2\n"));
}

TEST_F(MetricsTest, TotalsGrowToTheReadingAndNeverShrink) {
  reading_.total_generated_tokens = 10;
  EXPECT_THAT(Render(), HasSubstr("\ntenon_generated_tokens_total 10\n"));
  EXPECT_THAT(Render(), HasSubstr("\ntenon_generated_tokens_total 10\n"));
  reading_.total_generated_tokens = 25;
  EXPECT_THAT(Render(), HasSubstr("\ntenon_generated_tokens_total 25\n"));
  reading_.total_generated_tokens = 0;
  EXPECT_THAT(Render(), HasSubstr("\ntenon_generated_tokens_total 25\n"));
}

TEST_F(MetricsTest, GatewayNamesAreThere) {
  reading_.num_running = 4;
  reading_.num_waiting = 1;
  reading_.kv_blocks_used = 25;
  reading_.kv_blocks_total = 100;
  const std::string text = Render();
  EXPECT_THAT(text, HasSubstr("\nvllm:num_requests_running 4\n"));
  EXPECT_THAT(text, HasSubstr("\nvllm:num_requests_waiting 1\n"));
  EXPECT_THAT(text, HasSubstr("\nvllm:kv_cache_usage_perc 0.25\n"));
}

TEST_F(MetricsTest, KvUsageWithoutBlocksIsZero) {
  EXPECT_THAT(Render(), HasSubstr("\nvllm:kv_cache_usage_perc 0\n"));
}

TEST_F(MetricsTest, AdapterSeriesHasTheReadingsTime) {
  reading_.running_adapters = {"de", "fr"};
  reading_.waiting_adapters = {"it"};
  EXPECT_THAT(
      Render(),
      HasSubstr(
          R"(vllm:lora_requests_info{max_lora="64",running_lora_adapters="de,fr",waiting_lora_adapters="it"} 1700000000)"));
}

TEST_F(MetricsTest, StaleAdapterSeriesAreRemoved) {
  for (int i = 0; i < 50; ++i) {
    reading_.running_adapters = {absl::StrCat("a", i)};
    now_ += absl::Seconds(1);
    const std::string text = Render();
    EXPECT_EQ(CountSeries(text, "vllm:lora_requests_info"), 1);
    EXPECT_THAT(text, HasSubstr(absl::StrCat("\"a", i, "\"")));
  }
  EXPECT_THAT(Render(), Not(HasSubstr("\"a48\"")));
}

TEST_F(MetricsTest, UnchangedAdapterSetKeepsItsSeries) {
  reading_.running_adapters = {"fr"};
  Render();
  now_ += absl::Seconds(30);
  const std::string text = Render();
  EXPECT_EQ(CountSeries(text, "vllm:lora_requests_info"), 1);
  EXPECT_THAT(text, HasSubstr(" 1700000030\n"));
}

TEST_F(MetricsTest, GenerationFillsTheHistograms) {
  metrics_.RecordGeneration({absl::Milliseconds(5), absl::Milliseconds(15), absl::Milliseconds(20),
                             absl::Milliseconds(90), 10});
  metrics_.RecordLatency(absl::Milliseconds(140));
  const std::string text = Render();
  EXPECT_THAT(text, HasSubstr("\ntenon_time_to_first_token_seconds_sum 0.04\n"));
  EXPECT_THAT(text, HasSubstr("\ntenon_inter_token_seconds_sum 0.01"));
  EXPECT_THAT(text, HasSubstr("\ntenon_queue_seconds_count 1\n"));
  EXPECT_THAT(text, HasSubstr("\ntenon_request_seconds_bucket{le=\"0.25\"} 1\n"));
}

TEST_F(MetricsTest, SingleTokenHasNoTimeBetweenTokens) {
  GenerationTimes times;
  times.num_generated_tokens = 1;
  metrics_.RecordGeneration(times);
  EXPECT_THAT(Render(), HasSubstr("\ntenon_inter_token_seconds_count 0\n"));
}

TEST_F(MetricsTest, UploadsCountOutcomesAndBytes) {
  metrics_.RecordUpload("ok", 1000);
  metrics_.RecordUpload("data_loss", 0);
  const std::string text = Render();
  EXPECT_THAT(text, HasSubstr(R"(tenon_uploads_total{outcome="data_loss"} 1)"));
  EXPECT_THAT(text, HasSubstr("\ntenon_upload_bytes_total 1000\n"));
}

TEST_F(MetricsTest, ScrapesAndRequestsMayMeet) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([this, t] {
      ServerReading reading;
      for (int i = 0; i < 100; ++i) {
        metrics_.RecordCall("Generate", "ok");
        reading.running_adapters = {std::to_string(t * 1000 + i)};
        reading.total_steps = i;
        reading.total_replays = i * 7 / 9;
        metrics_.Render(reading);
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  const std::string text = Render();
  EXPECT_THAT(text, HasSubstr(R"(tenon_requests_total{method="Generate",outcome="ok"} 400)"));
  EXPECT_THAT(text, HasSubstr("\ntenon_steps_total 99\n"));
  EXPECT_THAT(text, HasSubstr("\ntenon_replayed_steps_total 77\n"));
  EXPECT_EQ(CountSeries(text, "vllm:lora_requests_info"), 1);
}

TEST_F(MetricsTest, TenantsBeyondTheBoundShareOneSeries) {
  for (size_t i = 0; i < ServerMetrics::kMaxTenantLabels + 50; ++i) {
    metrics_.RecordTenant(absl::StrCat("tenant-", i), {.prompt_tokens = 3, .generated_tokens = 4});
  }
  metrics_.RecordTenant("tenant-0", {.prompt_tokens = 3, .generated_tokens = 4});
  metrics_.RecordQuotaRefusal("tenant-240", "TOKEN_RATE");
  const std::string text = Render();
  EXPECT_THAT(text, HasSubstr("tenon_tenant_requests_total{tenant=\"tenant-0\"} 2\n"));
  EXPECT_THAT(text, HasSubstr("tenon_tenant_requests_total{tenant=\"other\"} 50\n"));
  EXPECT_THAT(text,
              HasSubstr("tenon_tenant_tokens_total{kind=\"generated\",tenant=\"tenant-1\"} 4\n"));
  EXPECT_THAT(text,
              HasSubstr("tenon_quota_refusals_total{limit=\"TOKEN_RATE\",tenant=\"other\"} 1\n"));
  EXPECT_EQ(CountSeries(text, "tenon_tenant_requests_total"), 201);
}

TEST_F(MetricsTest, RefusedCallersAreCountedByReason) {
  metrics_.RecordRefusal("CREDENTIALS_EXPIRED");
  EXPECT_THAT(Render(),
              HasSubstr("tenon_refused_callers_total{reason=\"CREDENTIALS_EXPIRED\"} 1\n"));
}

}  // namespace
}  // namespace tenon
