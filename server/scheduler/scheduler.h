// Scheduler: chooses the rows of the next step.
#ifndef TENON_SERVER_SCHEDULER_SCHEDULER_H_
#define TENON_SERVER_SCHEDULER_SCHEDULER_H_

#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "server/scheduler/batch.h"
#include "server/scheduler/block_pool.h"
#include "server/scheduler/sequence.h"

namespace tenon {

struct SchedulerOptions {
  int64_t max_batch_tokens =
      512;  ///< token budget of a step: decodes first, prefill chunks in what is left
  int64_t max_sequences = 64;      ///< rows of a step at most
  int64_t max_context_tokens = 0;  ///< prompt and generated tokens of a sequence at most
  std::string cache_salt;  ///< digest of the base model and dtype: the root of every KV chain
  bool prefix_cache = true;
};

/// Continuous batching with chunked prefill, automatic prefix sharing and preemption by recompute.
///
/// A step is Schedule, run, Commit. Sequences join and leave between any two steps. First-come,
/// first-served: when blocks run out the youngest running sequence gives up its blocks and goes
/// back to the front of the queue; its tokens are kept and computed again, so the client sees a
/// pause and nothing else.
///
/// Not thread-safe (engine thread). No clock: the caller passes the time.
/// Invariants: the sum of rows' tokens <= max_batch_tokens; a row's sequence holds blocks for all
/// its tokens in the step; rows are sorted so that equal selections are adjacent.
class Scheduler {
 public:
  /// `pool` is borrowed and outlives the scheduler.
  Scheduler(SchedulerOptions options, BlockPool* pool);

  /// Takes a sequence whose worst case fits the pool (the caller checked with Fits()).
  void Add(std::unique_ptr<Sequence> sequence);

  /// Whether a sequence of `prompt_tokens` + `max_tokens` can ever run here alone.
  bool Fits(int64_t prompt_tokens, int64_t max_tokens) const;

  /// The next step, possibly empty: nothing to do, or everything is paused or waits for adapters.
  Batch Schedule(absl::Time now);

  /// Records the step's outcome. `sampled` has one entry per row with `samples`, in row order.
  /// Appends tokens, marks ends (stop token, max_tokens, context length), publishes full blocks,
  /// releases the blocks of finished sequences.
  void Commit(const Batch& batch, std::span<const SampledToken> sampled, absl::Time now);

  /// Ends a sequence between steps (cancel, deadline, error, stop string) and releases its blocks.
  void Finish(SequenceId id, FinishReason reason);

  /// Takes out the sequences that have finished since the last call.
  std::vector<std::unique_ptr<Sequence>> TakeFinished();

  /// All sequences in flight: running first, then waiting in queue order.
  std::vector<Sequence*> sequences() const;
  Sequence* Find(SequenceId id) const;

  int64_t num_waiting() const { return static_cast<int64_t>(waiting_.size()); }
  int64_t num_running() const { return static_cast<int64_t>(running_.size()); }
  int64_t num_preemptions() const { return num_preemptions_; }

 private:
  SchedulerOptions options_;
  BlockPool* pool_;
  std::deque<std::unique_ptr<Sequence>> waiting_;
  std::vector<std::unique_ptr<Sequence>> running_;  // in order of arrival
  std::vector<std::unique_ptr<Sequence>> finished_;
  int64_t num_preemptions_ = 0;
};

}  // namespace tenon

#endif  // TENON_SERVER_SCHEDULER_SCHEDULER_H_
