// Many submitters and readers at once, for ThreadSanitizer and for the counters: after all of it
// every request has ended, and every block is back.
#include <gtest/gtest.h>

#include <atomic>
#include <random>
#include <thread>

#include "tests/server/engine/engine_fixture.h"

namespace tenon {
namespace {

constexpr int kNumThreads = 8;
constexpr int kRequestsPerThread = 60;

class EngineStressTest : public EngineTest {
 protected:
  /// Submits requests one after the other and reads each to its end, cancelling some on the way.
  void Client(uint64_t seed) {
    std::mt19937_64 random(seed);
    const auto draw = [&](int low, int high) {
      return std::uniform_int_distribution<int>(low, high)(random);
    };
    for (int i = 0; i < kRequestsPerThread; ++i) {
      Reader reader(draw(1, 8));
      GenerationRequest request =
          Request(reader, std::vector<int32_t>(draw(1, 40), draw(0, 3)), draw(1, 30));
      request.num_samples = draw(1, 3);
      if (draw(0, 1) == 1) {
        request.selection = Select(absl::StrCat("adapter-", draw(0, 5)));
      }
      if (draw(0, 9) == 0) {
        request.deadline = absl::Now() + absl::Microseconds(draw(0, 2000));
      }
      const int32_t num_samples = request.num_samples;
      const int32_t first = request.prompt[0] + 1;
      if (!engine_->Submit(std::move(request)).ok()) {
        ++num_refused_;
        continue;
      }
      if (draw(0, 4) == 0) {
        reader.stream()->CancelAll(FinishReason::kCancelled);
      } else if (draw(0, 4) == 0) {
        reader.stream()->CancelSample(draw(0, 2), FinishReason::kStopString);
      }
      const Reader::Result result = reader.ReadAll(num_samples);
      for (int32_t s = 0; s < num_samples; ++s) {
        ++num_ended_;
        for (size_t t = 0; t < result.tokens[s].size(); ++t) {
          EXPECT_EQ(result.tokens[s][t], first + static_cast<int32_t>(t)) << "seed " << seed;
        }
        EXPECT_EQ(result.finishes[s].num_generated_tokens,
                  static_cast<int64_t>(result.tokens[s].size()));
      }
      num_accepted_ += num_samples;
    }
  }

  std::atomic<int64_t> num_accepted_ = 0;
  std::atomic<int64_t> num_ended_ = 0;
  std::atomic<int64_t> num_refused_ = 0;
};

TEST_F(EngineStressTest, EveryRequestEndsAndEveryBlockComesBack) {
  EngineOptions options = Options();
  options.kv_num_blocks = 40;  // small enough for preemptions
  options.max_queued_sequences = 12;
  engine_ =
      *Engine::Create(options, std::make_unique<ScriptedRunner>(&script_), &cache_, absl::Now);
  std::vector<std::thread> clients;
  for (int i = 0; i < kNumThreads; ++i) {
    clients.emplace_back([this, i] { Client(1000 + i); });
  }
  std::atomic<bool> done = false;
  std::thread watcher([&] {
    while (!done) {
      const EngineStats stats = engine_->stats();
      EXPECT_LE(stats.kv_blocks_used, stats.kv_blocks_total);
      engine_->Wake();
      cache_.Evict("adapter-0");
      std::this_thread::yield();
    }
  });
  for (std::thread& client : clients) {
    client.join();
  }
  done = true;
  watcher.join();
  engine_->Drain(absl::Now() + kPatience);
  const EngineStats stats = engine_->stats();
  EXPECT_EQ(stats.kv_blocks_used, 0);
  EXPECT_EQ(stats.num_running + stats.num_waiting, 0);
  EXPECT_EQ(num_ended_, num_accepted_);
  EXPECT_GT(num_accepted_, 0);
}

TEST_F(EngineStressTest, StopInTheMiddleEndsEveryRequest) {
  engine_ =
      *Engine::Create(Options(), std::make_unique<ScriptedRunner>(&script_), &cache_, absl::Now);
  std::vector<std::thread> clients;
  for (int i = 0; i < kNumThreads; ++i) {
    clients.emplace_back([this, i] { Client(2000 + i); });
  }
  script_.AwaitStep(50);
  engine_->Stop();
  for (std::thread& client : clients) {
    client.join();
  }
  EXPECT_EQ(num_ended_, num_accepted_);
  EXPECT_GT(num_refused_, 0);
}

}  // namespace
}  // namespace tenon
