// Engine: runs steps until stopped.
#ifndef TENON_SERVER_ENGINE_ENGINE_H_
#define TENON_SERVER_ENGINE_ENGINE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/call_once.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "adapters/registry/adapter_selection.h"
#include "adapters/residency/adapter_cache.h"
#include "server/engine/token_stream.h"
#include "server/model/model_runner.h"
#include "server/scheduler/scheduler.h"

namespace tenon {

class EngineInbox;
class MergeTier;
class EngineLoop;

/// One request as the engine takes it: already authenticated, tokenized and validated.
struct GenerationRequest {
  std::string request_id;
  std::string tenant;
  std::vector<int32_t> prompt;
  std::shared_ptr<const AdapterSelection> selection;  ///< never null
  SamplingParams sampling;                            ///< sample i draws from seed + i
  int32_t num_samples = 1;
  absl::Time deadline = absl::InfiniteFuture();
  int32_t priority = 0;        ///< within the tenant, [kMinPriority, kMaxPriority]
  TenantShare share = {};      ///< the tenant's, as of now
  bool deterministic = false;  ///< only arithmetic that is the same in every batch may serve it
  std::shared_ptr<TokenStream> stream;  ///< never null
  absl::Time arrival;                   ///< set by Submit
  AdapterClaim claim;                   ///< set by Submit, when there is room for the adapters
};

/// One step, as seen by whoever counts them.
struct StepStats {
  int64_t num_rows = 0;
  int64_t num_segments = 0;
  int64_t num_prefill_tokens = 0;  ///< in rows that compute more than the last token
  int64_t num_decode_tokens = 0;
  int64_t num_context_tokens = 0;  ///< virtual tokens of adapters, computed or copied
  int64_t num_merged_tokens = 0;   ///< of the rows, on merged weights
  absl::Duration run;              ///< inside ModelRunner::Run
};

struct EngineOptions {
  SchedulerOptions scheduler;
  int64_t kv_num_blocks = 0;
  int64_t kv_block_size = 16;
  /// Bound of inbox and queue together. Tenants with less than their part of it are let in beyond,
  /// up to twice as many, so that one tenant's flood does not shut out the others.
  int64_t max_queued_sequences = 1024;

  /// Weights of selections that are merged; borrowed, outlives the engine. Null: nothing is merged.
  MergeTier* merge_tier = nullptr;

  /// Told of each step that ran and each sequence that ended, with its error when that was the
  /// reason. They run on the engine thread, so they only count. May be empty.
  std::function<void(const StepStats&)> on_step;
  std::function<void(const Sequence&, const absl::Status&)> on_finish;
};

/// A reading of the engine for metrics and status pages, as of the last step boundary. Token counts
/// only grow.
struct EngineStats {
  int64_t num_running = 0, num_waiting = 0;
  int64_t kv_blocks_used = 0, kv_blocks_cached = 0, kv_blocks_total = 0;
  int64_t num_steps = 0, num_preemptions = 0;
  int64_t num_replays = 0;  ///< steps whose forward pass was a recorded CUDA graph
  /// Prompts are counted when their sequence has its first token.
  int64_t prompt_tokens = 0, cached_prompt_tokens = 0, generated_tokens = 0;
  int64_t merged_tokens = 0;  ///< prompt and generated ones that were computed on merged weights
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
  /// `cache` is borrowed and outlives the engine. `clock` is called on any thread.
  /// INVALID_ARGUMENT when the options contradict each other.
  static absl::StatusOr<std::unique_ptr<Engine>> Create(EngineOptions options,
                                                        std::unique_ptr<ModelRunner> runner,
                                                        AdapterCache* cache,
                                                        std::function<absl::Time()> clock);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  /// Hands a request over; its events arrive in request.stream, ending with one FinishEvent per
  /// sample. Never waits, and starts loading adapters that are cold.
  /// RESOURCE_EXHAUSTED: the queue is full (QUEUE_FULL, with the time in which what is queued now
  /// should have been served), or the KV memory can never hold the request (KV_CAPACITY) or the
  /// tenant's part of it (KV_PERCENT).
  /// A request that will not start before its deadline gets its end at the next step boundary:
  /// RESOURCE_EXHAUSTED (DEADLINE_UNREACHABLE, with the expected wait) when it has just come,
  /// DEADLINE_EXCEEDED when it has waited.
  /// UNAVAILABLE when draining or stopped. The stream then gets no events.
  absl::Status Submit(GenerationRequest request);

  /// Makes the engine look at credits, cancellations, deadlines and adapters again.
  void Wake();

  /// Refuses new requests from now on; returns when the last one has ended or at `deadline`.
  void Drain(absl::Time deadline);
  /// Ends what is left with UNAVAILABLE after the step that runs now, and joins the thread.
  void Stop();

  EngineStats stats() const;

 private:
  Engine(std::shared_ptr<EngineInbox> inbox, std::unique_ptr<EngineLoop> loop, AdapterCache* cache,
         std::function<absl::Time()> clock);

  const std::shared_ptr<EngineInbox> inbox_;  // shared with callbacks that may outlive the engine
  const std::unique_ptr<EngineLoop> loop_;    // the thread's; here only to be started and kept
  AdapterCache* const cache_;
  const std::function<absl::Time()> clock_;
  absl::once_flag stopped_;
  std::thread thread_;
};

}  // namespace tenon

#endif  // TENON_SERVER_ENGINE_ENGINE_H_
