// Publish, promote, roll back, unload and delete at any moment under full load: no stream fails,
// none is answered by another version than the one that it reports, and none is held up.
//
// TENON_SWAPS sets how many changes are made; 1000 without.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tenon/v1/residency.grpc.pb.h"
#include "tests/fault/stream_load.h"
#include "tests/integration/server_fixture.h"
#include "tests/integration/version_calls.h"

namespace tenon {
namespace {

constexpr int kRounds = 10;  // quiet and swapping in turn, this many of each
constexpr int32_t kTokens = 32;
constexpr double kMaxRatio = 1.5;
constexpr unsigned kSeed = 20260501;

const std::vector<std::string>& Folders() {
  static const auto& folders =
      *new std::vector<std::string>{"plain-qv", "rslora", "all-linear", "mlp-rank-16", "rank-3"};
  return folders;
}

int NumSwaps() {
  const char* text = std::getenv("TENON_SWAPS");
  int number = 0;
  return text != nullptr && absl::SimpleAtoi(text, &number) ? number : 1000;
}

// The versions of one name as its only writer knows them.
struct KnownName {
  std::vector<int64_t> versions;
  int64_t latest = 0;
};

class SwapUnderLoadTest : public ServerTest {
 protected:
  void SetUp() override {
    Start();
    for (const std::string& folder : Folders()) {
      const std::string digest = UploadTiny(folder, absl::StrCat("solo-", folder)).digest();
      for (const std::string& prompt : load_.prompts) {
        solo_[{digest, prompt}] =
            StreamLoad::Ask(*generation_, absl::StrCat("solo-", folder), prompt, load_.num_tokens);
        ASSERT_EQ(solo_[(std::pair{digest, prompt})].size(), static_cast<size_t>(load_.num_tokens));
      }
    }
    for (const std::string& name : load_.adapters) {
      for (const std::string& folder : Folders()) {
        Publish(name, folder);
      }
    }
  }

  void Publish(const std::string& name, const std::string& folder) {
    v1::UploadAdapterResponse response;
    Expect("publish", Upload(UploadMessages(name, TinyAdapterFiles(folder)), &response));
    KnownName& known = names_[name];
    known.latest = response.adapter().version();
    if (response.created()) {
      known.versions.push_back(known.latest);
    }
  }
  void Promote(const std::string& name) {
    KnownName& known = names_[name];
    const int64_t version = known.versions[random_() % known.versions.size()];
    Expect("promote", calls()
                          .Promote(absl::StrCat("name: '", name, "' version: ", version,
                                                " expected_version: ", known.latest))
                          .status);
    known.latest = version;
  }
  void Rollback(const std::string& name) {
    const auto rolled = calls().Rollback("name: '" + name + "'");
    if (rolled.status.error_code() == grpc::StatusCode::FAILED_PRECONDITION) {
      ++done_["rollback without history"];
      return;
    }
    Expect("rollback", rolled.status);
    names_[name].latest = rolled.response.change().to();
  }
  // A version that has been served a moment ago, so that streams are on it.
  void Delete(const std::string& name) {
    KnownName& known = names_[name];
    if (known.versions.size() < 3) {
      return Publish(name, Folders()[random_() % Folders().size()]);
    }
    size_t index = random_() % known.versions.size();
    if (known.versions[index] == known.latest) {
      index = (index + 1) % known.versions.size();
    }
    Expect(
        "delete",
        calls().Delete(absl::StrCat("adapter: '", name, "@", known.versions[index], "'")).status);
    known.versions.erase(known.versions.begin() + static_cast<int64_t>(index));
  }

  // Takes what streams are using out of memory: it goes when they have ended, and comes back.
  void Unload(const std::string& name) {
    grpc::ClientContext context;
    v1::UnloadAdapterRequest request;
    request.set_adapter(name);
    v1::UnloadAdapterResponse response;
    Expect("unload",
           v1::ResidencyService::NewStub(channel_)->UnloadAdapter(&context, request, &response));
  }

  // One change of one name, at random.
  void Step() {
    const std::string& name = load_.adapters[random_() % load_.adapters.size()];
    switch (random_() % 5) {
      case 0:
        return Publish(name, Folders()[random_() % Folders().size()]);
      case 1:
        return Promote(name);
      case 2:
        return Rollback(name);
      case 3:
        return Unload(name);
      default:
        return Delete(name);
    }
  }
  // `count` changes, each 8 to 50 ms after the one before began.
  void Swap(int count) {
    for (int i = 0; i < count; ++i) {
      const absl::Time next =
          absl::Now() + absl::Milliseconds(8 + static_cast<int64_t>(random_() % 43));
      Step();
      absl::SleepFor(next - absl::Now());
    }
  }

  VersionCalls calls() { return VersionCalls(adapters_.get()); }
  void Expect(const std::string& what, const grpc::Status& status) {
    ++done_[what];
    EXPECT_TRUE(status.ok()) << what << ": " << status.error_message();
  }

  StreamLoad::Options load_{.num_streams = 32,
                            .num_tokens = kTokens,
                            .adapters = {"left", "right"},
                            .prompts = {"hello", "the same words again", "a"}};
  SoloAnswers solo_;
  std::map<std::string, KnownName> names_;
  std::map<std::string, int> done_;
  std::mt19937 random_{kSeed};
};

TEST_F(SwapUnderLoadTest, NoStreamFailsAndNoneIsHeldUp) {
  std::printf("seed %u\n%-6s %10s %10s %8s\n", kSeed, "round", "quiet p99", "swap p99", "ratio");
  StreamLoad load(server_->NewChannel(), load_, &solo_);
  absl::SleepFor(absl::Seconds(1));
  std::vector<double> ratios, quiet_all, swap_all;
  done_.clear();
  for (int round = 0; round < kRounds; ++round) {
    load.TakeGaps();
    const absl::Time begin = absl::Now();
    Swap(NumSwaps() / kRounds);
    const absl::Duration length = absl::Now() - begin;
    const std::vector<double> swapping = load.TakeGaps();
    absl::SleepFor(length);
    const std::vector<double> quiet = load.TakeGaps();
    const double quiet_p99 = Quantile(quiet, 0.99), swap_p99 = Quantile(swapping, 0.99);
    ratios.push_back(swap_p99 / quiet_p99);
    std::printf("%-6d %7.1f ms %7.1f ms %8.2f\n", round, quiet_p99, swap_p99, ratios.back());
    quiet_all.insert(quiet_all.end(), quiet.begin(), quiet.end());
    swap_all.insert(swap_all.end(), swapping.begin(), swapping.end());
  }
  load.Finish();
  const StreamCounts counts = load.counts();
  for (const auto& [what, count] : done_) {
    std::printf("%d %s, ", count, what.c_str());
  }
  std::printf("\n%ld streams finished, %ld failed, %ld dropped, %ld wrong, %ld unknown\n",
              counts.finished, counts.failed, counts.dropped, counts.wrong, counts.unknown);
  std::printf(
      "between tokens, all rounds: p50 %.1f ms quiet, %.1f ms swapping; p99 %.1f and %.1f; "
      "median ratio of p99 %.2f\n",
      Quantile(quiet_all, 0.5), Quantile(swap_all, 0.5), Quantile(quiet_all, 0.99),
      Quantile(swap_all, 0.99), Quantile(ratios, 0.5));
  EXPECT_GT(counts.finished, 32);
  EXPECT_EQ(counts.failed, 0) << counts.first_trouble;
  EXPECT_EQ(counts.dropped, 0) << counts.first_trouble;
  EXPECT_EQ(counts.wrong, 0) << counts.first_trouble;
  EXPECT_EQ(counts.unknown, 0) << counts.first_trouble;
  EXPECT_LE(Quantile(ratios, 0.5), kMaxRatio);
}

}  // namespace
}  // namespace tenon
