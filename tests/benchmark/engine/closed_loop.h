// ClosedLoop: clients of an engine, without gRPC, and adapters made up for them.
#ifndef TENON_TESTS_BENCHMARK_ENGINE_CLOSED_LOOP_H_
#define TENON_TESTS_BENCHMARK_ENGINE_CLOSED_LOOP_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/engine/engine.h"
#include "server/model/model.h"

namespace tenon {

/// A LoRA of the given rank on every linear layer; small, so that the model goes on making sense.
std::shared_ptr<const CompiledAdapter> RandomAdapter(const Model& model, int64_t rank);

/// The selection of one made-up adapter, whose digest is its name.
std::shared_ptr<const AdapterSelection> SelectionOf(const std::string& name);

/// What one request went through.
struct RequestTimes {
  absl::Time submitted;
  absl::Time first_token = absl::InfiniteFuture();
  absl::Time finished;
  absl::Status status;
};

struct LoopOptions {
  int64_t vocab_size = 0;
  int64_t concurrency = 16;
  int64_t requests = 64;
  int64_t prompt_tokens = 128;
  int64_t output_tokens = 64;
  int64_t shared_prefix = 0;  ///< leading prompt tokens that all requests share
  uint64_t seed = 1;          ///< of the prompts
  /// What request i asks for.
  std::function<std::shared_ptr<const AdapterSelection>(int64_t index)> selection;
};

/// Keeps `concurrency` requests in flight until all have ended. Events are read on the thread that
/// calls Run; the engine's thread only puts the stream's number in a queue.
class ClosedLoop {
 public:
  /// `engine` is borrowed.
  ClosedLoop(Engine* engine, LoopOptions options);

  /// Once. Greedy answers; the error of the first request that failed.
  absl::Status Run();

  const std::vector<RequestTimes>& times() const { return times_; }
  /// From the first request to the last end.
  absl::Duration elapsed() const;

 private:
  std::vector<int32_t> RandomTokens(int64_t count);
  /// Nothing when all have been submitted.
  absl::Status SubmitNext();
  int64_t AwaitReadable() ABSL_LOCKS_EXCLUDED(mutex_);

  Engine* const engine_;
  const LoopOptions options_;
  std::mt19937_64 random_;
  const std::vector<int32_t> shared_;
  int64_t num_submitted_ = 0;
  std::vector<RequestTimes> times_;
  std::vector<std::shared_ptr<TokenStream>> streams_;
  absl::Mutex mutex_;
  std::deque<int64_t> readable_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tenon

#endif  // TENON_TESTS_BENCHMARK_ENGINE_CLOSED_LOOP_H_
