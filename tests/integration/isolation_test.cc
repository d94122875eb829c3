// What one tenant can learn of another: nothing. The real binary over real gRPC.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "tests/integration/many_tenants.h"

namespace tenon {
namespace {

/// A LoRA adapter of random numbers, large enough that each changes the answer in its own way.
std::map<std::string, std::string> RandomAdapter(uint64_t seed) {
  std::map<std::string, std::string> files = TinyAdapterFiles("plain-qv");
  std::string& bytes = files["adapter_model.safetensors"];
  uint64_t header = 0;
  std::memcpy(&header, bytes.data(), sizeof(header));
  std::mt19937_64 random(seed);
  std::uniform_real_distribution<float> value(-1.0f, 1.0f);
  for (size_t at = sizeof(header) + header; at + sizeof(float) <= bytes.size();
       at += sizeof(float)) {
    const float drawn = value(random);
    std::memcpy(bytes.data() + at, &drawn, sizeof(drawn));
  }
  return files;
}

int64_t FromEnvironment(const char* name, int64_t otherwise) {
  int64_t value = 0;
  const char* text = std::getenv(name);
  return text != nullptr && absl::SimpleAtoi(text, &value) ? value : otherwise;
}

class CanaryTest : public ManyTenantsTest {
 protected:
  static constexpr int kTenants = 50, kAdapters = 20;

  void SetUp() override {
    std::mt19937_64 random(20'260'307);
    for (int t = 0; t < kTenants; ++t) {
      tenants_names_.push_back(absl::StrFormat("tenant-%02d", t));
      adapter_canaries_.push_back(absl::StrFormat("ac%012x", random() >> 16));
      prompt_canaries_.push_back(absl::StrFormat("pc%012x", random() >> 16));
    }
    StartWith(tenants_names_,
              {"--max-sequences=32", "--max-batch-tokens=128", "--kv-cache-bytes=2000000",
               "--poison-freed-kv", "--usage-log=" + folder_.path() + "/usage.jsonl"});
  }

  std::string AdapterOf(int tenant, int adapter) const {
    return absl::StrCat(adapter_canaries_[tenant], "-", adapter);
  }
  v1::GenerateRequest RequestOf(int tenant, int adapter) const {
    v1::GenerateRequest request;
    request.set_prompt(absl::StrCat("The secret is ", prompt_canaries_[tenant], "."));
    request.set_adapter(AdapterOf(tenant, adapter));
    request.mutable_sampling()->set_temperature(0);
    request.mutable_stopping()->set_max_tokens(6);
    request.mutable_stopping()->set_ignore_eos(true);
    request.mutable_output()->set_token_ids(true);
    request.set_deterministic(true);
    return request;
  }

  void UploadAll() {
    constexpr int kUploads = 4;  // below --max-concurrent-uploads, of which ends are told late
    OnThreads(kUploads, [this](int thread) {
      for (int i = thread; i < kTenants * kAdapters; i += kUploads) {
        const int tenant = i / kAdapters;
        const std::unique_ptr<grpc::ClientContext> context = As(tenants_names_[tenant]);
        v1::UploadAdapterResponse response;
        auto writer = adapters_->UploadAdapter(context.get(), &response);
        for (const v1::UploadAdapterRequest& message :
             UploadMessages(AdapterOf(tenant, i % kAdapters), RandomAdapter(i))) {
          writer->Write(message);
        }
        writer->WritesDone();
        const grpc::Status status = writer->Finish();
        EXPECT_TRUE(status.ok()) << status.error_message();
      }
    });
  }

  std::vector<int32_t> Ask(int tenant, int adapter) const {
    v1::GenerateOnceResponse response;
    const grpc::Status status =
        GenerateAs(tenants_names_[tenant], RequestOf(tenant, adapter), &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    if (response.samples_size() != 1) {
      return {};
    }
    EXPECT_TRUE(response.samples(0).finish().deterministic());
    CountForeign(tenant, response.ShortDebugString(), "an answer");
    return {response.samples(0).token_ids().begin(), response.samples(0).token_ids().end()};
  }

  /// Whatever is for `tenant` (-1: for all) may hold its own secrets at most.
  void CountForeign(int tenant, absl::string_view text, absl::string_view where) const {
    for (int other = 0; other < kTenants; ++other) {
      if (other != tenant && (absl::StrContains(text, adapter_canaries_[other]) ||
                              absl::StrContains(text, prompt_canaries_[other]))) {
        ++num_foreign_;
        ADD_FAILURE() << where << " of " << tenant << " has a secret of " << other << ": " << text;
      }
    }
  }

  /// The tenant that a line says it is about, or -1.
  int TenantOf(absl::string_view line, absl::string_view before) const {
    const size_t at = line.find(before);
    int tenant = -1;
    return at != absl::string_view::npos &&
                   absl::SimpleAtoi(line.substr(at + before.size(), 2), &tenant)
               ? tenant
               : -1;
  }

  void ScanLog() const {
    int64_t num_lines = 0;
    for (const absl::string_view line : absl::StrSplit(log_, '\n')) {
      const int tenant = TenantOf(line, "tenant=tenant-");
      CountForeign(tenant, line, "a log line");
      for (const std::string& canary : prompt_canaries_) {
        EXPECT_FALSE(absl::StrContains(line, canary)) << "a prompt in the log: " << line;
      }
      num_lines += tenant >= 0 ? 1 : 0;
    }
    EXPECT_GT(num_lines, kTenants * kAdapters) << "the log was not read";
  }

  void ScanMetrics() const {
    const std::string metrics = server_->HttpGet("/metrics");
    int num_series = 0;
    for (const absl::string_view line : absl::StrSplit(metrics, '\n')) {
      const int tenant = TenantOf(line, "tenant=\"tenant-");
      if (tenant >= 0) {
        ++num_series;
        CountForeign(tenant, line, "a metric");
      }
      for (const std::string& canary : prompt_canaries_) {
        EXPECT_FALSE(absl::StrContains(line, canary)) << line;
      }
    }
    EXPECT_GE(num_series, kTenants);
    EXPECT_LE(num_series, kTenants * 12) << "labels without bound";
  }

  /// What a tenant does wrong is answered in its own words.
  void ProvokeErrors() const {
    for (int tenant = 0; tenant < kTenants; ++tenant) {
      v1::GenerateRequest missing = RequestOf(tenant, 0), long_one = missing, weighted = missing;
      missing.set_adapter(absl::StrCat(adapter_canaries_[tenant], "-none"));
      long_one.set_prompt(std::string(4000, 'x'));
      weighted.mutable_sampling()->set_temperature(-1);
      for (const v1::GenerateRequest& request : {missing, long_one, weighted}) {
        v1::GenerateOnceResponse response;
        const grpc::Status status = GenerateAs(tenants_names_[tenant], request, &response);
        EXPECT_FALSE(status.ok());
        CountForeign(tenant, absl::StrCat(status.error_message(), status.error_details()),
                     "an error");
      }
      // Another tenant's adapter does not exist.
      const int other = (tenant + 1) % kTenants;
      v1::GenerateRequest foreign = RequestOf(tenant, 0);
      foreign.set_adapter(AdapterOf(other, 0));
      v1::GenerateOnceResponse response;
      EXPECT_EQ(GenerateAs(tenants_names_[tenant], foreign, &response).error_code(),
                grpc::StatusCode::NOT_FOUND);
    }
  }

  std::vector<std::string> tenants_names_, adapter_canaries_, prompt_canaries_;
  std::string log_;
  mutable std::atomic<int64_t> num_foreign_ = 0;
};

TEST_F(CanaryTest, NoSecretIsEverOutOfPlace) {
  UploadAll();
  std::vector<std::vector<int32_t>> alone;
  for (int i = 0; i < kTenants * kAdapters; ++i) {
    alone.push_back(Ask(i / kAdapters, i % kAdapters));
  }
  const std::set<std::vector<int32_t>> distinct(alone.begin(), alone.end());
  ASSERT_EQ(distinct.size(), alone.size()) << "answers that do not tell adapters apart";

  const int64_t num_requests = FromEnvironment("TENON_CANARY_REQUESTS", 20'000);
  constexpr int kThreads = 24;
  std::atomic<int64_t> num_wrong = 0;
  const absl::Time begin = absl::Now();
  OnThreads(kThreads, [&](int thread) {
    std::mt19937_64 random(thread);
    for (int64_t i = thread; i < num_requests; i += kThreads) {
      const int chosen = static_cast<int>(random() % alone.size());
      num_wrong += Ask(chosen / kAdapters, chosen % kAdapters) == alone[chosen] ? 0 : 1;
    }
  });
  const double seconds = absl::ToDoubleSeconds(absl::Now() - begin);
  // Before the errors, in which tenants write others' names themselves.
  log_ = ReadFile(log_path());
  ScanLog();
  ScanMetrics();
  ProvokeErrors();
  std::cout << absl::StreamFormat(
      "%d requests of %d tenants with %d adapters each in %.1f s: %d wrong answers, %d secrets out "
      "of place\n",
      num_requests, kTenants, kAdapters, seconds, num_wrong.load(), num_foreign_.load());
  EXPECT_EQ(num_wrong, 0);
  EXPECT_EQ(num_foreign_, 0);
  int64_t num_billed = 0;
  for (const std::string& tenant : tenants_names_) {
    const v1::GetUsageResponse all = UsageOf(tenant);
    for (const v1::AdapterUsage& usage : all.adapters()) {
      num_billed += usage.requests();
      EXPECT_GT(usage.device_seconds(), 0) << usage.adapter();
      EXPECT_GT(usage.adapter_byte_seconds(), 0) << usage.adapter();
    }
  }
  EXPECT_EQ(num_billed, num_requests + static_cast<int64_t>(alone.size()));
}

/// Victims ask, an attacker guesses and looks at the clock.
class CacheTimingTest : public ManyTenantsTest {
 protected:
  static constexpr int kTrials = 200;  // of each kind, a round
  /// A guess is a conversation of that many prompts; the soonest answered counts: noise only
  /// delays.
  static constexpr int kPromptsOfAGuess = 3;
  static constexpr int kPromptTokens = 192;
  /// A prompt takes many steps, as it does in a model of real size: a hit stands out of the noise.
  const std::vector<std::string> kSmallSteps = {"--max-sequences=8", "--max-batch-tokens=8"};

  v1::GenerateRequest Prompt(std::mt19937_64& random) const {
    v1::GenerateRequest request;
    for (int i = 0; i < kPromptTokens; ++i) {
      request.mutable_tokens()->add_ids(static_cast<int32_t>(3 + random() % 300));
    }
    request.mutable_sampling()->set_temperature(0);
    request.mutable_stopping()->set_max_tokens(1);
    return request;
  }

  struct Observation {
    double seconds = 0;
    int64_t cached_tokens = 0;
  };
  Observation Observe(const std::string& tenant, const v1::GenerateRequest& request) const {
    v1::GenerateOnceResponse response;
    const absl::Time begin = absl::Now();
    const grpc::Status status = GenerateAs(tenant, request, &response);
    const absl::Duration took = absl::Now() - begin;
    EXPECT_TRUE(status.ok()) << status.error_message();
    return {absl::ToDoubleSeconds(took),
            response.samples_size() == 0
                ? -1
                : response.samples(0).finish().usage().cached_prompt_tokens()};
  }

  std::vector<v1::GenerateRequest> Conversation(std::mt19937_64& random) const {
    std::vector<v1::GenerateRequest> prompts;
    for (int i = 0; i < kPromptsOfAGuess; ++i) {
      prompts.push_back(Prompt(random));
    }
    return prompts;
  }

  /// The least time of its prompts and the sum of their cached tokens.
  Observation Observe(const std::string& tenant,
                      const std::vector<v1::GenerateRequest>& conversation) const {
    Observation least{.seconds = 1e9, .cached_tokens = 0};
    for (const v1::GenerateRequest& prompt : conversation) {
      const Observation seen = Observe(tenant, prompt);
      least.seconds = std::min(least.seconds, seen.seconds);
      least.cached_tokens += seen.cached_tokens;
    }
    return least;
  }

  /// How often a right guess is answered sooner than a wrong one: 0.5 is chance, 1 certainty.
  static double Auc(const std::vector<double>& right, const std::vector<double>& wrong) {
    double sooner = 0;
    for (const double r : right) {
      for (const double w : wrong) {
        sooner += r < w ? 1.0 : r == w ? 0.5 : 0.0;
      }
    }
    return sooner / static_cast<double>(right.size() * wrong.size());
  }

  /// One round of right and wrong guesses in turn.
  double Attack(uint64_t seed, int64_t* cached_tokens) const {
    std::mt19937_64 random(seed);
    std::vector<double> right, wrong;
    for (int trial = 0; trial < kTrials; ++trial) {
      const std::vector<v1::GenerateRequest> secret = Conversation(random),
                                             other = Conversation(random);
      Observe("victim", secret);
      const bool right_first = random() % 2 == 0;
      for (const bool guess : {right_first, !right_first}) {
        const Observation seen = Observe("attacker", guess ? secret : other);
        (guess ? right : wrong).push_back(seen.seconds);
        *cached_tokens += seen.cached_tokens;
      }
    }
    return Auc(right, wrong);
  }
};

TEST_F(CacheTimingTest, GuessesAreNoBetterThanChance) {
  StartWith({"victim", "attacker"}, kSmallSteps);
  // With 200 and 200 guesses chance gives an AUC over 0.55 once in 24 rounds (its deviation is
  // sqrt(401 / (12 * 200 * 200)) = 0.029), so four rounds in a row once in 330 000. A cache that
  // tells gives 0.9 and more every time, as the next test shows.
  double auc = 1;
  int64_t cached_tokens = 0;
  for (uint64_t round = 0; round < 4 && auc > 0.55; ++round) {
    auc = Attack(round, &cached_tokens);
    std::cout << absl::StreamFormat("own caches: AUC %.3f of %d guesses\n", auc, 2 * kTrials);
  }
  EXPECT_LE(auc, 0.55);
  EXPECT_EQ(cached_tokens, 0) << "nothing that the clock could show";
}

TEST_F(CacheTimingTest, SharedModeIsSeenByTheSameAttack) {
  std::vector<std::string> flags = kSmallSteps;
  flags.push_back("--share-base-prefixes");
  StartWith({"victim", "attacker"}, flags);
  int64_t cached_tokens = 0;
  // A busy machine can blur a round; the cache is there in each.
  double auc = 0;
  int64_t num_rounds = 0;
  for (; num_rounds < 4 && auc <= 0.9; ++num_rounds) {
    auc = Attack(7 + num_rounds, &cached_tokens);
    std::cout << absl::StreamFormat("shared prefixes: AUC %.3f of %d guesses\n", auc, 2 * kTrials);
  }
  EXPECT_GT(auc, 0.9);
  EXPECT_EQ(cached_tokens, num_rounds * kTrials * kPromptsOfAGuess * (kPromptTokens - 16));
}

class MeteringTest : public ManyTenantsTest {
 protected:
  /// What is known of the adapter `fr` when `done` holds, or after a while.
  template <typename Done>
  v1::AdapterUsage Await(Done done) const {
    v1::AdapterUsage fr;
    for (int i = 0; i < 200 && !done(fr); ++i) {
      absl::SleepFor(absl::Milliseconds(50));
      const v1::GetUsageResponse all = UsageOf("acme");
      for (const v1::AdapterUsage& usage : all.adapters()) {
        if (usage.adapter() == "fr") {
          fr = usage;
        }
      }
    }
    EXPECT_TRUE(done(fr)) << fr.ShortDebugString();
    return fr;
  }
};

TEST_F(MeteringTest, MemoryAndLoadsAreChargedToTheAdaptersOwner) {
  const std::vector<std::string> flags = {"--usage-flush-interval=100ms"};
  StartWith({"acme", "globex"}, flags);
  const std::unique_ptr<grpc::ClientContext> context = As("acme");
  v1::UploadAdapterResponse uploaded;
  auto writer = adapters_->UploadAdapter(context.get(), &uploaded);
  for (const v1::UploadAdapterRequest& message : UploadMessages("fr", RandomAdapter(1))) {
    writer->Write(message);
  }
  writer->WritesDone();
  ASSERT_TRUE(writer->Finish().ok());
  const v1::AdapterUsage before =
      Await([](const v1::AdapterUsage& usage) { return usage.adapter_byte_seconds() > 0; });
  EXPECT_EQ(before.loads(), 0) << "an upload leaves it resident";
  server_.reset();
  Start(flags);
  admin_channel_ = server_->NewChannel(server_->admin_address());
  tenants_ = v1::TenantService::NewStub(admin_channel_);
  v1::GenerateRequest request;
  request.set_prompt("a");
  request.set_adapter("fr");
  request.mutable_stopping()->set_max_tokens(1);
  v1::GenerateOnceResponse response;
  ASSERT_TRUE(GenerateAs("acme", request, &response).ok());
  const v1::AdapterUsage after =
      Await([](const v1::AdapterUsage& usage) { return usage.loads() > 0; });
  EXPECT_EQ(after.loads(), 1);
  EXPECT_EQ(after.requests(), 1);
  EXPECT_GT(after.adapter_byte_seconds(), before.adapter_byte_seconds()) << "sums go on";
  EXPECT_EQ(UsageOf("globex").adapters_size(), 0);
}

/// Nine quiet tenants, one after the other's answer, beside one with 60 requests at all times.
class NoisyNeighbourTest : public ManyTenantsTest {
 protected:
  static constexpr int kQuiet = 9, kNoisyThreads = 60, kRequests = 25;

  static v1::GenerateRequest Request(int thread, int i, int max_tokens) {
    v1::GenerateRequest request;
    for (int t = 0; t < 24; ++t) {
      request.mutable_tokens()->add_ids(3 + (thread * 31 + i * 7 + t * t) % 300);
    }
    request.mutable_sampling()->set_temperature(0);
    request.mutable_stopping()->set_max_tokens(max_tokens);
    request.mutable_stopping()->set_ignore_eos(true);
    return request;
  }

  /// Seconds to the first token of the quiet ones, as the server tells.
  std::vector<double> MeasureQuiet(bool with_noise) {
    std::atomic<bool> done = false;
    std::thread noise([&] {
      OnThreads(with_noise ? kNoisyThreads : 0, [&](int thread) {
        for (int i = 0; !done; ++i) {
          v1::GenerateOnceResponse response;
          GenerateAs("noisy", Request(100 + thread, i, 40), &response);
        }
      });
    });
    if (with_noise) {
      absl::SleepFor(absl::Milliseconds(500));
    }
    absl::Mutex mutex;
    std::vector<double> ttfts;
    OnThreads(kQuiet, [&](int thread) {
      for (int i = 0; i < kRequests; ++i) {
        v1::GenerateOnceResponse response;
        const grpc::Status status =
            GenerateAs(absl::StrCat("quiet-", thread), Request(thread, i, 4), &response);
        EXPECT_TRUE(status.ok()) << status.error_message();
        if (status.ok()) {
          const v1::Timings& timings = response.samples(0).finish().timings();
          absl::MutexLock lock(&mutex);
          ttfts.push_back((timings.queue_ms() + timings.prefill_ms()) / 1e3);
        }
        absl::SleepFor(absl::Milliseconds(10));
      }
    });
    done = true;
    noise.join();
    std::sort(ttfts.begin(), ttfts.end());
    return ttfts;
  }

  static double Part(const std::vector<double>& sorted, double part) {
    return sorted.empty()
               ? 0
               : sorted[static_cast<size_t>(part * static_cast<double>(sorted.size() - 1))];
  }
};

TEST_F(NoisyNeighbourTest, QuietTenantsKeepTheirTimeToFirstToken) {
  std::map<std::string, double> p50;
  std::vector<std::string> tenants = {"noisy"};
  for (int i = 0; i < kQuiet; ++i) {
    tenants.push_back(absl::StrCat("quiet-", i));
  }
  StartWith(tenants, {"--max-sequences=8", "--max-batch-tokens=64"});
  const auto print = [&](const std::string& name, const std::vector<double>& ttfts) {
    p50[name] = Part(ttfts, 0.5);
    std::cout << absl::StreamFormat("%-24s quiet ttft p50 %.1f ms, p99 %.1f ms\n", name,
                                    1e3 * p50[name], 1e3 * Part(ttfts, 0.99));
  };
  print("alone", MeasureQuiet(false));
  print("fair shares", MeasureQuiet(true));
  server_.reset();
  Start({"--max-sequences=8", "--max-batch-tokens=64", "--nofair-shares"});
  print("first come, first served", MeasureQuiet(true));
  EXPECT_GE(p50["first come, first served"], 4 * p50["fair shares"])
      << "60 requests before each: seven batches of 40 steps";
}

}  // namespace
}  // namespace tenon
