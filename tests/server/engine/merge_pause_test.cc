// What a switch between merged and unmerged weights costs the requests that run over it: no
// failure, no other token, and of the engine's time less than a step. SmolLM2 in fp32; skipped
// without it.
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>
#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "adapters/kernels/parallel.h"
#include "server/engine/merge_tier.h"
#include "server/model/decoder_runner.h"
#include "server/model/kv_cache.h"
#include "server/model/model.h"
#include "tests/server/engine/engine_fixture.h"

namespace tenon {
namespace {

constexpr int kStreams = 4;
constexpr int32_t kTokens = 48;
constexpr int kQuietRounds = 4;  // of kStreams answers each
constexpr int kSwitches = 40;    // twenty merges and as many unmerges
constexpr int64_t kContext = 128;
constexpr int64_t kBlockSize = 16;

// One step as the engine's thread went through it.
struct StepTimes {
  absl::Time begin, end;  // of ModelRunner::Run
  bool merged = false;
};

// Notes when each step ran.
class TimedRunner : public ModelRunner {
 public:
  explicit TimedRunner(std::unique_ptr<ModelRunner> runner) : runner_(std::move(runner)) {}

  absl::StatusOr<StepOutput> Run(const Batch& batch,
                                 std::span<const ResolvedSelection> adapters) override {
    StepTimes times;
    times.begin = absl::Now();
    absl::StatusOr<StepOutput> output = runner_->Run(batch, adapters);
    times.end = absl::Now();
    times.merged = output.ok() && output->num_merged_tokens > 0;
    absl::MutexLock lock(&mutex_);
    steps_.push_back(times);
    return output;
  }
  std::vector<StepTimes> Take() {
    absl::MutexLock lock(&mutex_);
    return std::exchange(steps_, {});
  }

 private:
  const std::unique_ptr<ModelRunner> runner_;
  absl::Mutex mutex_;
  std::vector<StepTimes> steps_ ABSL_GUARDED_BY(mutex_);
};

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values.empty() ? 0 : values[values.size() / 2];
}

double Longest(const std::vector<double>& values) {
  return values.empty() ? 0 : *std::max_element(values.begin(), values.end());
}

int64_t ResidentBytes() {
  std::ifstream statm("/proc/self/statm");
  int64_t size = 0, resident = 0;
  statm >> size >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

// Milliseconds of a run of steps.
struct Pace {
  explicit Pace(const std::vector<StepTimes>& run) {
    for (size_t i = 1; i < run.size(); ++i) {
      const double between = absl::ToDoubleMilliseconds(run[i].begin - run[i - 1].end);
      steps.push_back(absl::ToDoubleMilliseconds(run[i].end - run[i].begin));
      gaps.push_back(absl::ToDoubleMilliseconds(run[i].end - run[i - 1].end));
      (run[i].merged != run[i - 1].merged ? switches : others).push_back(between);
    }
  }
  std::vector<double> steps;     // inside the runner
  std::vector<double> gaps;      // from one step's end to the next one's: what a stream sees
  std::vector<double> switches;  // the engine's own time before a step on other weights
  std::vector<double> others;    // before any other step
};

class MergePauseTest : public testing::Test {
 protected:
  void SetUp() override {
    const char* const folder = std::getenv("TENON_TEST_MODEL");
    if (folder == nullptr) {
      GTEST_SKIP() << "TENON_TEST_MODEL names no SmolLM2 folder (deploy/quickstart/fetch_model.sh)";
    }
    SetNumKernelThreads(1);
    ModelOptions options;
    options.dtype = at::kFloat;
    absl::StatusOr<Model> model = LoadModel(folder, options);
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
    cache_ = std::make_unique<AdapterCache>(int64_t{1} << 30,
                                            [this](const AdapterInfo&) { return MakeAdapter(); });
    MergeTier::Options tier_options;
    tier_options.budget_bytes = int64_t{1} << 30;
    tier_options.policy.min_tokens = int64_t{1} << 60;  // the test says what is merged
    tier_ = std::make_unique<MergeTier>(tier_options, model_.decoder, cache_.get());
    MakeEngine();
  }

  absl::StatusOr<std::shared_ptr<const CompiledAdapter>> MakeAdapter() const {
    auto adapter = std::make_shared<CompiledAdapter>(model_.base.num_layers);
    for (const auto& [name, shape] : model_.base.modules) {
      if (shape.site == Site::kO || shape.site == Site::kDown) {
        SiteDelta site;
        site.low_rank = *LowRankDelta::Create(at::randn({8, shape.in_features}),
                                              at::randn({shape.out_features, 8}), 1e-3f);
        adapter->set_delta(shape.layer, shape.site, std::move(site));
      }
    }
    return adapter;
  }

  void MakeEngine() {
    EngineOptions options;
    options.kv_block_size = kBlockSize;
    options.kv_num_blocks = kStreams * (kContext / kBlockSize + 1);
    options.scheduler.max_sequences = kStreams;
    options.scheduler.max_context_tokens = kContext;
    options.merge_tier = tier_.get();
    auto runner =
        DecoderRunner::Create(model_.decoder, options.kv_num_blocks, kBlockSize, kContext);
    ASSERT_TRUE(runner.ok()) << runner.status();
    auto timed = std::make_unique<TimedRunner>(*std::move(runner));
    runner_ = timed.get();
    auto engine = Engine::Create(options, std::move(timed), cache_.get(), absl::Now);
    ASSERT_TRUE(engine.ok()) << engine.status();
    engine_ = *std::move(engine);
  }

  // The greedy answers of kStreams requests that decode together.
  std::vector<std::vector<int32_t>> Round() {
    std::vector<Reader> readers(kStreams);
    for (int i = 0; i < kStreams; ++i) {
      GenerationRequest request;
      request.request_id = "r";
      request.tenant = "acme";
      request.prompt = {100 + i, 200, 300 + 7 * i, 400, 500};
      request.selection = selection_;
      request.sampling.temperature = 0;
      request.sampling.ignore_eos = true;
      request.sampling.max_tokens = kTokens;
      request.stream = readers[i].stream();
      const absl::Status status = engine_->Submit(std::move(request));
      EXPECT_TRUE(status.ok()) << status;
    }
    std::vector<std::vector<int32_t>> answers;
    for (Reader& reader : readers) {
      const Reader::Result result = reader.ReadAll();
      num_failed_ += !result.finishes[0].status.ok();
      ++num_answers_;
      answers.push_back(result.tokens[0]);
    }
    return answers;
  }

  void SetMode(MergeMode mode) {
    absl::Notification done;
    tier_->SetMode(selection_, mode, [&](const absl::Status& status) {
      EXPECT_TRUE(status.ok()) << status;
      done.Notify();
    });
    done.WaitForNotification();
  }

  // kSwitches of them, with a few steps on each kind of weights in between.
  void SwitchManyTimes() {
    for (int i = 0; i < kSwitches; ++i) {
      SetMode(i % 2 == 0 ? MergeMode::kAlways : MergeMode::kNever);
      const int64_t steps = engine_->stats().num_steps;
      while (engine_->stats().num_steps < steps + 3) {
        absl::SleepFor(absl::Milliseconds(1));
      }
    }
    switched_ = true;
  }

  // Waits until the process is as small as `nbytes`; what it is then.
  static int64_t AwaitResidentBytes(int64_t nbytes) {
    const absl::Time give_up = absl::Now() + absl::Seconds(10);
    while (ResidentBytes() > nbytes && absl::Now() < give_up) {
      absl::SleepFor(absl::Milliseconds(10));
    }
    return ResidentBytes();
  }

  const std::shared_ptr<const AdapterSelection> selection_ =
      std::make_shared<AdapterSelection>(std::vector<WeightedAdapter>{{HandleOf("hot"), 1.0f}});
  Model model_;
  std::unique_ptr<AdapterCache> cache_;
  std::unique_ptr<MergeTier> tier_;
  std::unique_ptr<Engine> engine_;
  TimedRunner* runner_ = nullptr;  // the engine's
  std::atomic<bool> switched_ = false;
  int num_failed_ = 0, num_answers_ = 0;
};

TEST_F(MergePauseTest, SwitchFailsNothingAndTakesLessThanAStep) {
  const std::vector<std::vector<int32_t>> expected = Round();
  runner_->Take();  // that one was cold
  for (int i = 0; i < kQuietRounds; ++i) {
    EXPECT_EQ(Round(), expected);
  }
  const Pace quiet(runner_->Take());
  std::thread switching([this] { SwitchManyTimes(); });
  int num_wrong = 0;
  while (!switched_) {
    num_wrong += Round() != expected;
  }
  switching.join();
  const Pace moving(runner_->Take());

  const double step = Median(quiet.steps);
  std::printf("%d answers over %zu switches, %d failed, %d with other tokens\n", num_answers_,
              moving.switches.size(), num_failed_, num_wrong);
  std::printf("%-34s %10s %10s\n%-34s %7.2f ms %7.2f ms\n%-34s %7.2f ms %7.2f ms\n", "", "quiet",
              "switching", "median step", step, Median(moving.steps), "longest gap of a stream",
              Longest(quiet.gaps), Longest(moving.gaps));
  std::printf("%-34s %7.3f ms %7.3f ms\n%-34s %10s %7.3f ms\n%-34s %10s %7.3f ms\n",
              "between steps, median", Median(quiet.others), Median(moving.others),
              "at a switch, median", "", Median(moving.switches), "at a switch, longest", "",
              Longest(moving.switches));
  EXPECT_EQ(num_failed_, 0);
  EXPECT_EQ(num_wrong, 0);
  EXPECT_GE(moving.switches.size(), static_cast<size_t>(kSwitches) * 3 / 4);
  EXPECT_LT(Longest(moving.switches), step) << "the engine stood still at a switch";
}

TEST_F(MergePauseTest, MemoryOfAMergeComesBackWithTheUnmerge) {
  Round();
  malloc_trim(0);  // what reading the model left behind, which the first unmerge would give back
  const int64_t before = ResidentBytes();
  for (int i = 0; i < 3; ++i) {
    SetMode(MergeMode::kAlways);
    const int64_t copy = tier_->stats().merged_bytes;
    Round();
    const int64_t merged = ResidentBytes();
    SetMode(MergeMode::kNever);
    EXPECT_EQ(tier_->stats().merged_bytes, 0);
    Round();  // the last step that held it is over
    const int64_t after = AwaitResidentBytes(before + copy / 4);
    std::printf("resident: %ld MB before, %ld MB merged (copy of %ld MB), %ld MB after\n",
                before >> 20, merged >> 20, copy >> 20, after >> 20);
    EXPECT_GT(merged, before + copy * 3 / 4);
    EXPECT_LE(after, before + copy / 4);
  }
}

}  // namespace
}  // namespace tenon
