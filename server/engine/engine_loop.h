// EngineLoop: what the engine thread does.
#ifndef TENON_SERVER_ENGINE_ENGINE_LOOP_H_
#define TENON_SERVER_ENGINE_ENGINE_LOOP_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/engine/adapter_pins.h"
#include "server/engine/engine.h"
#include "server/engine/engine_inbox.h"
#include "server/engine/merge_tier.h"

namespace tenon {

/// Takes requests from the inbox, runs steps and pushes events, until the inbox says stop.
///
/// Between any two steps: new requests, adapters that have become resident, cancellations,
/// deadlines and credits. With nothing to run the thread sleeps in the inbox until mail or the
/// nearest deadline. A step that fails ends the sequences that were in it or waited for a context
/// of it, and nothing else; a context that fails ends those that need it.
///
/// Not thread-safe but for Fits: all else belongs to the thread that calls Run.
class EngineLoop {
 public:
  /// `cache` is borrowed and outlives the loop.
  EngineLoop(EngineOptions options, std::unique_ptr<ModelRunner> runner, AdapterCache* cache,
             std::function<absl::Time()> clock, std::shared_ptr<EngineInbox> inbox);
  EngineLoop(const EngineLoop&) = delete;
  EngineLoop& operator=(const EngineLoop&) = delete;

  /// Scheduler::Fits. Thread-safe.
  bool Fits(int64_t prompt_tokens, int64_t max_tokens, int64_t virtual_tokens) const {
    return scheduler_.Fits(prompt_tokens, max_tokens, virtual_tokens);
  }

  /// Scheduler::FitsTenant. Thread-safe.
  bool FitsTenant(int64_t prompt_tokens, int64_t max_tokens, int64_t virtual_tokens,
                  const TenantShare& share) const {
    return scheduler_.FitsTenant(prompt_tokens, max_tokens, virtual_tokens, share);
  }

  /// Returns after the inbox was stopped and everything has been ended.
  void Run();

 private:
  /// A request between Submit and the end of its last sample.
  struct ActiveRequest {
    std::shared_ptr<TokenStream> stream;
    AdapterPins pins;
    std::string tenant;
    absl::Time arrival;
    std::vector<std::string> adapter_names;     // "tenant/name@version"
    std::vector<SequenceId> samples;            // those that have ended included
    std::vector<SampledToken> prompt_logprobs;  // of prompt tokens 1..n-1, as far as computed
  };
  struct ActiveSequence {
    std::shared_ptr<ActiveRequest> request;
    absl::Status error;          // why it ended, when the reason is kError
    absl::Duration device_time;  // its part of the steps that it was in
  };

  // --- at a step boundary ---
  void Start(GenerationRequest request, absl::Time now);
  /// Ends the request when it will not start before its deadline.
  void RefuseIfLate(const GenerationRequest& request, std::span<const SequenceId> samples,
                    absl::Duration expected_wait, absl::Time now);
  /// Ends waiting sequences that will not start before their deadline.
  void EndLate(absl::Time now);
  /// Claims and pins adapters, request by request; ends the requests whose adapter cannot be
  /// loaded.
  void UpdateAdapters(absl::Time now);
  /// Puts loading_ in the order in which requests may take room: those of tenants with the fewest
  /// claims first, and of one tenant the oldest.
  void SortLoading();
  /// Whether a request of loading_ needs no more looking after. `contended` says that one before it
  /// waits for room, and becomes true when this one does.
  bool UpdateLoading(const std::shared_ptr<ActiveRequest>& request, absl::Time now,
                     bool& contended);
  /// Lets go of the contexts of adapters that have left the device.
  void UpdateContexts();
  /// Ends what was cancelled or is late, sets who is paused and who is merged. Returns the nearest
  /// deadline.
  absl::Time UpdateSequences(absl::Time now);

  // --- a step ---
  /// False when there is nothing to run.
  bool RunStep();
  absl::StatusOr<StepOutput> RunModel(const Batch& batch);
  /// What a segment's rows may run on, or null.
  const MergedWeights* FindMerged(const BatchSegment& segment) const;
  /// Ends the users of contexts that were not computed; `context_status` as in StepOutput.
  void FailContexts(const Batch& batch, const std::vector<absl::Status>& context_status,
                    absl::Time now);
  /// Ends the sequences whose row has no token; `row_status` as in StepOutput.
  void FailRows(const Batch& batch, const std::vector<absl::Status>& row_status, absl::Time now);
  void PushEvents(const Batch& batch, StepOutput output);
  void KeepPromptLogprobs(const BatchRow& row, std::vector<SampledToken> chunk);
  /// `output` is null when the step failed.
  void CountStep(const Batch& batch, const StepOutput* output, absl::Duration run);
  /// Shares a step's time among its rows by what their tokens cost.
  void ShareDeviceTime(const Batch& batch, absl::Duration run);

  // --- ends ---
  void Fail(SequenceId id, const absl::Status& error, absl::Time now);
  /// Pushes the finish events of what has ended, and reports before and after. False when nothing
  /// has.
  bool DeliverFinished(absl::Time now);
  void CountEnded(int64_t count, absl::Time now);
  absl::Status EndStatus(const Sequence& sequence, const absl::Status& error) const;
  void Report(const SequenceCounts& ended);
  void UpdateAdapterNames();

  const EngineOptions options_;
  const std::unique_ptr<ModelRunner> runner_;
  AdapterCache* const cache_;
  const std::function<absl::Time()> clock_;
  const std::shared_ptr<EngineInbox> inbox_;
  const std::function<void()> wake_;  // may run on any thread, and after this is gone
  BlockPool pool_;
  Scheduler scheduler_;
  std::shared_ptr<const MergedSet> merged_;  // of the step that runs now; null: none
  SequenceId next_id_ = 1;
  int64_t num_departures_ = 0;  // of adapters, as of the last UpdateContexts
  absl::flat_hash_map<SequenceId, ActiveSequence> active_;
  // Not all of their adapters are pinned.
  std::vector<std::shared_ptr<ActiveRequest>> loading_;
  EngineStats stats_;
  int64_t num_ended_ = 0;
  // What the sets of running and waiting sequences depend on, as of the last UpdateAdapterNames.
  std::tuple<int64_t, int64_t, int64_t, int64_t> membership_;
  absl::Time last_end_ = absl::InfinitePast();           // or when the engine was last idle
  absl::Duration time_per_sequence_ = absl::Seconds(1);  // moving average, until known a guess
};

}  // namespace tenon

#endif  // TENON_SERVER_ENGINE_ENGINE_LOOP_H_
