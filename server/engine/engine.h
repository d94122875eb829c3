// Engine: runs steps until stopped.
#ifndef TENON_SERVER_ENGINE_ENGINE_H_
#define TENON_SERVER_ENGINE_ENGINE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "adapters/registry/adapter_selection.h"
#include "adapters/residency/adapter_cache.h"
#include "server/engine/token_stream.h"
#include "server/model/model_runner.h"
#include "server/scheduler/scheduler.h"

namespace tenon {

/// One request as the engine takes it: already authenticated, tokenized and validated.
struct GenerationRequest {
  std::string request_id;
  std::string tenant;
  std::vector<int32_t> prompt;
  std::shared_ptr<const AdapterSelection> selection;  ///< never null
  SamplingParams sampling;                            ///< sample i draws from seed + i
  int32_t num_samples = 1;
  absl::Time deadline = absl::InfiniteFuture();
  std::shared_ptr<TokenStream> stream;  ///< never null
};

struct EngineOptions {
  SchedulerOptions scheduler;
  int64_t kv_num_blocks = 0;
  int64_t kv_block_size = 16;
  int64_t max_queued_sequences = 1024;  ///< bound of inbox and queue together
};

/// A reading of the engine for metrics and status pages.
struct EngineStats {
  int64_t num_running = 0, num_waiting = 0;
  int64_t kv_blocks_used = 0, kv_blocks_cached = 0, kv_blocks_total = 0;
  int64_t num_steps = 0, num_preemptions = 0;
  int64_t prompt_tokens = 0, cached_prompt_tokens = 0, generated_tokens = 0;
  std::vector<std::string> running_adapters,
      waiting_adapters;  ///< "tenant/name@version", sorted, distinct
};

/// Owns the one thread that schedules and runs steps. All public methods are thread-safe.
///
/// Life: Create -> Submit ... -> Drain (no new requests; returns when the last has ended or at the
/// deadline) -> Stop (ends what is left with UNAVAILABLE and joins the thread). The destructor
/// stops.
class Engine {
 public:
  /// `cache` is borrowed and outlives the engine.
  static absl::StatusOr<std::unique_ptr<Engine>> Create(EngineOptions options,
                                                        std::unique_ptr<ModelRunner> runner,
                                                        AdapterCache* cache,
                                                        std::function<absl::Time()> clock);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  /// Hands a request over; its events arrive in request.stream. Never waits.
  /// RESOURCE_EXHAUSTED (QUEUE_FULL, with a retry time) when the queue is full or the request can
  /// never fit; UNAVAILABLE when draining.
  absl::Status Submit(GenerationRequest request);

  /// Makes the engine look at credits, cancellations and adapters again.
  void Wake();

  void Drain(absl::Time deadline);
  void Stop();

  EngineStats stats() const;

 private:
  class Loop;
  explicit Engine(std::unique_ptr<Loop> loop);
  std::unique_ptr<Loop> loop_;
};

}  // namespace tenon

#endif  // TENON_SERVER_ENGINE_ENGINE_H_
