// What the engine's tests share: a clock, a model and readers that do what the test says.
#ifndef TENON_TESTS_SERVER_ENGINE_ENGINE_FIXTURE_H_
#define TENON_TESTS_SERVER_ENGINE_ENGINE_FIXTURE_H_

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "server/engine/engine.h"

namespace tenon {

/// How long a test waits for what must happen; only a failing test waits that long.
inline constexpr absl::Duration kPatience = absl::Seconds(30);

/// Time that passes only when told to. Thread-safe.
class FakeClock {
 public:
  absl::Time Now() const {
    absl::MutexLock lock(&mutex_);
    return now_;
  }
  void Advance(absl::Duration by) {
    absl::MutexLock lock(&mutex_);
    now_ += by;
  }

 private:
  mutable absl::Mutex mutex_;
  absl::Time now_ ABSL_GUARDED_BY(mutex_) = absl::UnixEpoch();
};

/// Turns the steps of a ScriptedRunner on and off and looks at them. Thread-safe; outlives the
/// runner.
class StepScript {
 public:
  /// Steps run only as far as AllowSteps lets them.
  void Hold() {
    absl::MutexLock lock(&mutex_);
    num_allowed_ = num_begun_;
  }
  void AllowSteps(int64_t count) {
    absl::MutexLock lock(&mutex_);
    num_allowed_ += count;
  }
  void AllowAll() {
    absl::MutexLock lock(&mutex_);
    num_allowed_ = std::numeric_limits<int64_t>::max() / 2;
  }
  /// Waits until the engine is inside the step with that number, counted from 1.
  void AwaitStep(int64_t step) {
    absl::MutexLock lock(&mutex_);
    const auto begun = [&] { return num_begun_ >= step; };
    EXPECT_TRUE(mutex_.AwaitWithTimeout(absl::Condition(&begun), kPatience)) << "step " << step;
  }
  int64_t num_steps() const {
    absl::MutexLock lock(&mutex_);
    return num_begun_;
  }

  /// Changes a step's output, or fails it. Set before the engine runs.
  std::function<absl::Status(const Batch&, StepOutput&)> edit;
  /// Sees the adapters of each step. Set before the engine runs.
  std::function<void(const Batch&, std::span<const ResolvedSelection>)> watch;

 private:
  friend class ScriptedRunner;

  void EnterStep() {
    absl::MutexLock lock(&mutex_);
    ++num_begun_;
    const auto allowed = [&] { return num_begun_ <= num_allowed_; };
    mutex_.AwaitWithTimeout(absl::Condition(&allowed), kPatience);
  }

  mutable absl::Mutex mutex_;
  int64_t num_begun_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t num_allowed_ ABSL_GUARDED_BY(mutex_) = std::numeric_limits<int64_t>::max() / 2;
};

/// Counts up: the next token is the last one plus one.
class ScriptedRunner : public ModelRunner {
 public:
  explicit ScriptedRunner(StepScript* script) : script_(script) {}

  absl::StatusOr<StepOutput> Run(const Batch& batch,
                                 std::span<const ResolvedSelection> adapters) override {
    script_->EnterStep();
    StepOutput output;
    for (const BatchRow& row : batch.rows) {
      if (row.samples) {
        output.sampled.push_back(
            {.token = row.sequence->tokens().back() + 1, .logprob = 0, .top_logprobs = {}});
      }
    }
    if (script_->watch) {
      script_->watch(batch, adapters);
    }
    if (script_->edit) {
      if (absl::Status status = script_->edit(batch, output); !status.ok()) {
        return status;
      }
    }
    return output;
  }

 private:
  StepScript* const script_;
};

/// The other end of a stream: waits for events instead of missing them. One reading thread. May go
/// while the engine is still at its last event.
class Reader {
 public:
  explicit Reader(int64_t capacity = 1000) : stream_(std::make_shared<TokenStream>(capacity)) {
    stream_->set_on_readable([arrivals = arrivals_] {
      absl::MutexLock lock(&arrivals->mutex);
      ++arrivals->num_events;
    });
  }

  const std::shared_ptr<TokenStream>& stream() { return stream_; }

  GenerationEvent Next() {
    {
      absl::MutexLock lock(&arrivals_->mutex);
      const auto readable = [&] { return arrivals_->num_events > num_read_; };
      if (!arrivals_->mutex.AwaitWithTimeout(absl::Condition(&readable), kPatience)) {
        ADD_FAILURE() << "no event";
        return FinishEvent{};
      }
    }
    ++num_read_;
    return *stream_->Pop();
  }
  TokenEvent NextToken() {
    const GenerationEvent event = Next();
    const TokenEvent* token = std::get_if<TokenEvent>(&event);
    EXPECT_NE(token, nullptr) << "not a token";
    return token == nullptr ? TokenEvent{} : *token;
  }

  /// Reads to the end of `num_samples` samples.
  struct Result {
    std::vector<std::vector<int32_t>> tokens;  // by sample
    std::vector<FinishEvent> finishes;         // by sample
    std::vector<PromptEvent> prompts;
  };
  Result ReadAll(int32_t num_samples = 1) {
    Result result;
    result.tokens.resize(num_samples);
    result.finishes.resize(num_samples);
    for (int32_t num_open = num_samples; num_open > 0;) {
      GenerationEvent event = Next();
      if (TokenEvent* token = std::get_if<TokenEvent>(&event)) {
        result.tokens[token->sample_index].push_back(token->token.token);
      } else if (FinishEvent* finish = std::get_if<FinishEvent>(&event)) {
        result.finishes[finish->sample_index] = *finish;
        --num_open;
      } else {
        result.prompts.push_back(std::get<PromptEvent>(event));
      }
    }
    return result;
  }

 private:
  struct Arrivals {
    absl::Mutex mutex;
    int64_t num_events ABSL_GUARDED_BY(mutex) = 0;
  };
  const std::shared_ptr<Arrivals> arrivals_ = std::make_shared<Arrivals>();
  std::shared_ptr<TokenStream> stream_;
  int64_t num_read_ = 0;
};

/// A handle on a made-up version whose digest is its name.
inline AdapterHandle HandleOf(const std::string& name) {
  AdapterInfo info;
  info.id = {"acme", name, 1};
  info.digest = name;
  return AdapterHandle(std::make_shared<const AdapterInfo>(std::move(info)));
}

inline std::shared_ptr<const AdapterSelection> Select(const std::string& name) {
  return std::make_shared<AdapterSelection>(std::vector<WeightedAdapter>{{HandleOf(name), 0.5f}});
}

/// An engine over the script, with adapters that load by `load`.
class EngineTest : public ::testing::Test {
 protected:
  static EngineOptions Options() {
    EngineOptions options;
    options.scheduler = {.max_batch_tokens = 16,
                         .max_sequences = 8,
                         .max_context_tokens = 4096,
                         .cache_salt = "base",
                         .prefix_cache = true};
    options.kv_num_blocks = 256;
    options.kv_block_size = 4;
    options.max_queued_sequences = 100;
    return options;
  }
  void SetUp() override { Make(Options()); }
  void TearDown() override {
    script_.AllowAll();
    engine_.reset();
  }
  void Make(EngineOptions options) {
    engine_.reset();
    absl::StatusOr<std::unique_ptr<Engine>> engine =
        Engine::Create(std::move(options), std::make_unique<ScriptedRunner>(&script_), &cache_,
                       [this] { return clock_.Now(); });
    ASSERT_TRUE(engine.ok()) << engine.status();
    engine_ = *std::move(engine);
  }

  static GenerationRequest Request(Reader& reader, std::vector<int32_t> prompt,
                                   int32_t max_tokens) {
    GenerationRequest request;
    request.request_id = "r";
    request.tenant = "acme";
    request.prompt = std::move(prompt);
    request.selection = std::make_shared<AdapterSelection>();
    request.sampling.max_tokens = max_tokens;
    request.stream = reader.stream();
    return request;
  }
  void Submit(Reader& reader, std::vector<int32_t> prompt, int32_t max_tokens) {
    ASSERT_TRUE(engine_->Submit(Request(reader, std::move(prompt), max_tokens)).ok());
  }

  FakeClock clock_;
  StepScript script_;
  // For loads that wait. Here, not in a test: the loader may look at it until the cache is gone.
  absl::Notification load_gate_;
  // Runs on the loader thread; set before the first adapter is asked for.
  std::function<absl::Status(const AdapterInfo&)> load_ = [](const AdapterInfo&) {
    return absl::OkStatus();
  };
  AdapterCache cache_{
      int64_t{1} << 20,
      [this](const AdapterInfo& info) -> absl::StatusOr<std::shared_ptr<const CompiledAdapter>> {
        if (absl::Status status = load_(info); !status.ok()) {
          return status;
        }
        return std::make_shared<const CompiledAdapter>(1);
      }};
  std::unique_ptr<Engine> engine_;
};

}  // namespace tenon

#endif  // TENON_TESTS_SERVER_ENGINE_ENGINE_FIXTURE_H_
