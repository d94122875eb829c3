// More adapters than there is room for: the loads, waits and evictions of the real binary.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tests/integration/residency_fixture.h"

namespace tenon {
namespace {

class AdapterChurnTest : public ResidencyTest {
 protected:
  // `count` adapters of one size; returns that size on the device.
  int64_t UploadMany(int count) {
    for (int i = 0; i < count; ++i) {
      UploadVariant("all-linear", absl::StrCat("a", i), i);
    }
    return ResidencyOf("a0").device_bytes();
  }
  static std::string DeviceBytes(int64_t adapter_bytes, int slots) {
    return absl::StrCat("--adapter-device-bytes=", adapter_bytes * slots + adapter_bytes / 2);
  }
  void ExpectNothingHeld() {
    EXPECT_EQ(Metric("tenon_adapter_held_bytes"), 0) << "a claim was not given back";
    EXPECT_EQ(Metric("tenon_sequences_running"), 0);
    EXPECT_EQ(Metric("tenon_kv_blocks_used"), 0);
  }
};

absl::Duration Median(std::vector<absl::Duration> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

std::vector<absl::Duration> FirstTokens(const std::vector<RequestOutcome>& outcomes) {
  std::vector<absl::Duration> times;
  for (const RequestOutcome& outcome : outcomes) {
    EXPECT_TRUE(outcome.status.ok()) << outcome.status.error_message();
    times.push_back(outcome.first_token);
  }
  return times;
}

TEST_F(AdapterChurnTest, FiveHundredRequestsForOneColdAdapterAreOneLoad) {
  StartResidency();
  UploadMany(1);
  Restart({"--max-queued=1000"});
  ASSERT_EQ(Metric("tenon_adapter_loads_total"), 0);
  const std::vector<v1::GenerateRequest> requests(500, GreedyRequest("a0", "hello", 1));
  const std::vector<RequestOutcome> outcomes =
      StreamAll(channel_, requests, std::vector<absl::Duration>(500));
  for (const RequestOutcome& outcome : outcomes) {
    ASSERT_TRUE(outcome.status.ok()) << outcome.status.error_message();
    EXPECT_EQ(outcome.tokens, outcomes[0].tokens);
  }
  EXPECT_EQ(Metric("tenon_adapter_loads_total"), 1);
  EXPECT_EQ(Metric("tenon_host_adapter_misses_total"), 1);
  ExpectNothingHeld();
}

// vLLM serves the old adapter's KV here (vllm-project/vllm#42125, #30931).
TEST_F(AdapterChurnTest, ReloadUnderTheSameNameNeverHitsOldBlocks) {
  StartResidency();
  const std::string prompt(100, 'x');
  const v1::GenerateRequest request = GreedyRequest("fr", prompt, 12);
  const auto ask = [&] {
    grpc::ClientContext context;
    v1::GenerateOnceResponse response;
    EXPECT_TRUE(generation_->GenerateOnce(&context, request, &response).ok());
    return response;
  };
  std::vector<std::vector<int>> answers;
  for (const char* folder : {"all-linear", "mlp-rank-16", "plain-qv"}) {
    UploadTiny(folder, "fr");  // a new version, which the bare name means from now on
    const double cached = Metric("tenon_cached_prompt_tokens_total");
    const v1::GenerateOnceResponse cold = ask();
    EXPECT_EQ(Metric("tenon_cached_prompt_tokens_total"), cached) << folder << " hit old blocks";
    const v1::GenerateOnceResponse warm = ask();
    EXPECT_GT(Metric("tenon_cached_prompt_tokens_total"), cached);
    ASSERT_TRUE(Call(&v1::ResidencyService::Stub::UnloadAdapter, "fr").ok());
    const v1::GenerateOnceResponse reloaded = ask();
    const auto tokens = [](const v1::GenerateOnceResponse& response) {
      const auto& ids = response.samples(0).token_ids();
      return std::vector<int>(ids.begin(), ids.end());
    };
    EXPECT_EQ(tokens(warm), tokens(cold));
    EXPECT_EQ(tokens(reloaded), tokens(cold)) << "the same bytes may use their own blocks";
    answers.push_back(tokens(cold));
  }
  Restart();  // no block survives
  for (int version = 1; version <= 3; ++version) {
    v1::GenerateRequest of_version = request;
    of_version.set_adapter(absl::StrCat("fr@", version));
    EXPECT_EQ(StreamAll(channel_, {of_version}, {absl::ZeroDuration()})[0].tokens,
              answers[static_cast<size_t>(version - 1)]);
  }
}

// SGLang went from 40 ms to 6.3 s median time to first token here (sgl-project/sglang#13349): each
// load held up the batch, and adapters were evicted before they were used.
TEST_F(AdapterChurnTest, SixteenAdaptersThroughEightSlotsDoNotThrash) {
  StartResidency();
  const int64_t nbytes = UploadMany(16);
  Restart({DeviceBytes(nbytes, 8)});
  constexpr int kRequests = 96;
  // Open loop, as it was there: requests come at a fixed rate, whoever waits.
  const auto round = [&](int num_adapters) {
    std::vector<v1::GenerateRequest> requests;
    std::vector<absl::Duration> start;
    for (int i = 0; i < kRequests; ++i) {
      requests.push_back(GreedyRequest(absl::StrCat("a", i * 7 % num_adapters),
                                       absl::StrCat("request number ", i), 16));
      start.push_back(i * absl::Milliseconds(25));
    }
    return Median(FirstTokens(StreamAll(channel_, requests, start)));
  };
  std::vector<double> ratios;
  for (int i = 0; i < 3; ++i) {
    const absl::Duration eight = round(8);
    const double loads = Metric("tenon_adapter_loads_total");
    const absl::Duration sixteen = round(16);
    std::printf(
        "median time to first token: 8 in 8 slots %.1f ms, 16 in 8 slots %.1f ms, %.0f loads\n",
        absl::ToDoubleMilliseconds(eight), absl::ToDoubleMilliseconds(sixteen),
        Metric("tenon_adapter_loads_total") - loads);
    EXPECT_GE(Metric("tenon_adapter_loads_total") - loads, 8) << "the slots hold all of them";
    EXPECT_LE(Metric("tenon_adapter_resident_bytes"), static_cast<double>(nbytes * 9));
    ratios.push_back(absl::FDivDuration(sixteen, eight));
  }
  // The best round: a server that thrashes does so in each, a busy machine disturbs some.
  EXPECT_LE(*std::min_element(ratios.begin(), ratios.end()), 3.0);
  ExpectNothingHeld();
}

// All at once, in a closed queue: every request waits for room, and each is served.
TEST_F(AdapterChurnTest, FortyAdaptersAtOnceThroughThreeSlotsAllGetTheirTurn) {
  StartResidency();
  const int64_t nbytes = UploadMany(40);
  Restart({DeviceBytes(nbytes, 3)});
  std::vector<v1::GenerateRequest> requests;
  for (int i = 0; i < 120; ++i) {
    v1::GenerateRequest request = GreedyRequest(absl::StrCat("a", i % 40), "hello", 8);
    if (i % 10 == 0) {  // two at once need both of their adapters resident together
      request.clear_adapter();
      request.add_adapters()->set_adapter(absl::StrCat("a", i % 40));
      request.add_adapters()->set_adapter(absl::StrCat("a", (i + 1) % 40));
    }
    requests.push_back(request);
  }
  const std::vector<RequestOutcome> outcomes =
      StreamAll(channel_, requests, std::vector<absl::Duration>(requests.size()));
  FirstTokens(outcomes);
  for (size_t i = 40; i < 80; ++i) {
    if (i % 10 != 0) {
      EXPECT_EQ(outcomes[i].tokens, outcomes[i + 40].tokens) << requests[i].adapter();
    }
  }
  ExpectNothingHeld();
}

// 2 000 adapters in the store, 200 of them asked for; TENON_TEST_ADAPTERS=2000 makes it that many,
// by default there are 200, of which 100 are.
TEST_F(AdapterChurnTest, ZipfOverManyAdaptersThroughThirtyTwoSlots) {
  const char* const wanted = std::getenv("TENON_TEST_ADAPTERS");
  const int num_adapters = wanted == nullptr ? 200 : std::atoi(wanted);
  const int num_requests = num_adapters * 2;
  const int num_asked = std::min(200, num_adapters / 2);
  StartResidency();
  const absl::Time begin_upload = absl::Now();
  const int64_t nbytes = UploadMany(num_adapters);
  const absl::Duration upload = absl::Now() - begin_upload;
  Restart({DeviceBytes(nbytes, 32), "--adapter-host-bytes=10000000", "--max-queued=10000"});
  std::vector<double> weights;
  for (int i = 0; i < num_asked; ++i) {
    weights.push_back(1.0 / (i + 1));
  }
  std::mt19937 random(5);
  std::discrete_distribution<int> zipf(weights.begin(), weights.end());
  std::vector<v1::GenerateRequest> requests;
  std::vector<absl::Duration> start;
  for (int i = 0; i < num_requests; ++i) {
    const int adapter = zipf(random) * (num_adapters / num_asked);  // spread over the store
    requests.push_back(GreedyRequest(absl::StrCat("a", adapter), absl::StrCat("request ", i), 8));
    start.push_back(i * absl::Milliseconds(4));
  }
  const absl::Time begin = absl::Now();
  const std::vector<RequestOutcome> outcomes = StreamAll(channel_, requests, start);
  const absl::Duration took = absl::Now() - begin;
  const absl::Duration first = Median(FirstTokens(outcomes));
  const v1::ResidencyTotals totals = Residency().totals();
  const auto percent = [](int64_t hits, int64_t misses) {
    return 100.0 * static_cast<double>(hits) /
           static_cast<double>(std::max<int64_t>(hits + misses, 1));
  };
  std::printf(
      "%d adapters uploaded in %.1f s; %d requests for %d of them through 32 slots: %.0f "
      "requests/s, "
      "%.0f tokens/s, median time to first token %.1f ms, device hits %.1f %%, host hits %.1f %%, "
      "%ld loads, %ld evictions\n",
      num_adapters, absl::ToDoubleSeconds(upload), num_requests, num_asked,
      num_requests / absl::ToDoubleSeconds(took), 8.0 * num_requests / absl::ToDoubleSeconds(took),
      absl::ToDoubleMilliseconds(first), percent(totals.device_hits(), totals.device_misses()),
      percent(totals.host_hits(), totals.host_misses()), static_cast<long>(totals.loads()),
      static_cast<long>(totals.evictions()));
  EXPECT_EQ(totals.failed_loads(), 0);
  EXPECT_GT(totals.evictions(), 0);
  EXPECT_LE(totals.device_bytes(), totals.device_budget_bytes());
  EXPECT_LE(totals.loads(), num_requests / 2) << "requests wait for each other's loads";
  ExpectNothingHeld();
}

}  // namespace
}  // namespace tenon
