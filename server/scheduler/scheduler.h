// Scheduler: chooses the rows of the next step.
#ifndef TENON_SERVER_SCHEDULER_SCHEDULER_H_
#define TENON_SERVER_SCHEDULER_SCHEDULER_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "server/scheduler/batch.h"
#include "server/scheduler/block_pool.h"
#include "server/scheduler/context_index.h"
#include "server/scheduler/prefix_index.h"
#include "server/scheduler/sequence.h"
#include "server/scheduler/waiting_queue.h"

namespace tenon {

struct SchedulerOptions {
  /// Token budget of a step: decodes first, prefill chunks in what is left. At least max_sequences,
  /// so that every row of a step gets a token.
  int64_t max_batch_tokens = 512;
  int64_t max_sequences = 64;  ///< rows of a step at most, > 0
  /// Virtual, prompt and generated tokens of a sequence at most, > 0.
  int64_t max_context_tokens = 0;
  std::string cache_salt;  ///< digest of the base model and dtype: the root of every KV chain
  bool prefix_cache = true;
};

/// Continuous batching with chunked prefill, automatic prefix sharing and preemption by recompute.
///
/// A step is Schedule, run, Commit. Sequences join and leave between any two steps. First-come,
/// first-served, but a blocked sequence (paused, or without its adapter) does not hold up those
/// behind it. When blocks run out, a paused sequence gives up its blocks, else the youngest running
/// one, and goes back to its place in the queue; its tokens are kept and computed again, so the
/// client sees a pause and nothing else. A sequence never takes blocks from an older one that can
/// run, so the oldest of those advances in every step.
///
/// The virtual tokens of a selection are computed once, when a sequence first needs them, and
/// shared by all its sequences; when the last one is gone their blocks stay cached until they are
/// needed.
///
/// Not thread-safe (engine thread), but for Fits. No clock: the caller passes the time.
/// Invariants: the sum of tokens of rows and contexts <= max_batch_tokens; a row's sequence holds
/// blocks for all its tokens in the step, and its context is computed, in this step at the latest;
/// rows are sorted so that equal selections are adjacent, merged ones last; a block that a row writes is held by that
/// row's sequence alone, one that a context row writes by users of that context.
class Scheduler {
 public:
  /// `pool` is borrowed and outlives the scheduler.
  Scheduler(SchedulerOptions options, BlockPool* pool);
  ~Scheduler();
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  /// Takes a sequence whose worst case fits the pool (the caller checked with Fits()) and whose id
  /// is not in flight.
  void Add(std::unique_ptr<Sequence> sequence);

  /// Whether a sequence of `prompt_tokens` + `max_tokens` behind `virtual_tokens` can ever run here
  /// alone. Thread-safe.
  bool Fits(int64_t prompt_tokens, int64_t max_tokens, int64_t virtual_tokens = 0) const;

  /// The next step, possibly empty: nothing to do, or everything is paused or waits for adapters.
  Batch Schedule(absl::Time now);

  /// Records the step's outcome. `sampled` has one entry per row with `samples`, in row order.
  /// Appends tokens, marks ends (stop token, max_tokens, context length), publishes full blocks,
  /// releases the blocks of finished sequences. Rows whose sequence was ended since Schedule (its
  /// row failed) are passed over, and so are contexts whose users were. A step that failed as a
  /// whole is not committed: Finish its sequences and the users of its contexts, or Schedule again
  /// to run it once more.
  void Commit(const Batch& batch, std::span<const SampledToken> sampled, absl::Time now);

  /// Ends a sequence between steps (cancel, deadline, error, stop string) and releases its blocks.
  /// Nothing happens when it is not in flight.
  void Finish(SequenceId id, FinishReason reason, absl::Time now);

  /// Takes out the sequences that have finished since the last call. Not between Schedule and
  /// Commit: the batch borrows them.
  std::vector<std::unique_ptr<Sequence>> TakeFinished();

  /// All sequences in flight: running first, then waiting in queue order.
  std::vector<Sequence*> sequences() const;
  /// The sequences that hold that context.
  std::vector<SequenceId> UsersOf(const Context& context) const;
  /// The sequence in flight with that id, or null.
  Sequence* Find(SequenceId id) const;

  int64_t num_waiting() const { return waiting_.size(); }
  int64_t num_running() const { return static_cast<int64_t>(running_.size()); }
  int64_t num_preemptions() const { return num_preemptions_; }

 private:
  /// The step under construction.
  struct Plan {
    struct Row {
      Sequence* sequence;
      int64_t num_tokens;
    };
    struct ContextPart {
      std::shared_ptr<const Context> context;
      int64_t num_tokens;
    };
    absl::Time now;
    int64_t tokens_left;
    std::vector<Row> rows;
    std::vector<ContextPart> contexts;
  };

  /// The running sequences that get a row: the oldest max_sequences that are not blocked.
  std::vector<Sequence*> ActiveSequences() const;
  /// Moves waiting sequences to running while rows, tokens and blocks are left.
  void Admit(int64_t rows_left, Plan& plan);
  /// False, with nothing changed, when its known tokens do not fit beside what runs.
  bool TryAdmit(Sequence* sequence, Plan& plan);
  /// Makes a sequence that holds `cached` blocks of its own running.
  void Start(Sequence* sequence, std::span<const BlockId> cached, Plan& plan);
  /// Gives a running sequence its row and blocks; preempts it when there are none.
  void PlanRow(Sequence* sequence, Plan& plan);
  /// Whether the sequence's context will be computed after this step; adds to the step what is
  /// missing, as far as there are tokens left.
  bool PlanContext(const Sequence& sequence, Plan& plan);
  /// Preempts others until the pool has that many blocks, at last `sequence` itself: false.
  bool MakeRoom(Sequence* sequence, int64_t num_blocks, Plan& plan);
  /// Whom `sequence` may take blocks from: paused sequences, then younger ones. Null when nobody.
  Sequence* FindVictim(const Sequence& sequence) const;
  void Preempt(Sequence* sequence, Plan& plan);
  Batch BuildBatch(Plan plan) const;
  void AddContexts(const Plan& plan, Batch& batch) const;

  /// Whether it is better kept in the queue until its leader's prompt can be shared.
  bool AwaitsLeader(const Sequence& sequence) const;
  bool MayUsePrefixCache(const Sequence& sequence) const;
  /// Blocks that active sequences still need for tokens they have already.
  int64_t NumPromisedBlocks() const;
  /// Blocks that would become available if all blocked running sequences were preempted.
  int64_t NumReclaimableBlocks() const;
  int64_t NumBlocksFor(int64_t num_tokens) const;
  /// The same for a sequence's context and that many of its tokens.
  int64_t NumBlocksFor(const Sequence& sequence, int64_t num_tokens) const;

  void CommitRow(Sequence* sequence, const BatchRow& row);
  FinishReason EndAfterLastToken(const Sequence& sequence) const;
  void ReleaseBlocks(Sequence* sequence);
  /// Notes what waiting sequences wait for, so that the time until the next step is charged to it.
  void ChargeWaiting(absl::Time now);
  std::unique_ptr<Sequence> RemoveRunning(const Sequence* sequence);

  const SchedulerOptions options_;
  BlockPool* const pool_;
  PrefixIndex prefix_index_;
  ContextIndex context_index_;
  uint64_t next_ticket_ = 1;
  WaitingQueue waiting_;
  std::vector<std::unique_ptr<Sequence>> running_;  // oldest first
  std::vector<std::unique_ptr<Sequence>> finished_;
  absl::flat_hash_map<SequenceId, Sequence*> by_id_;  // waiting and running
  int64_t num_preemptions_ = 0;
};

}  // namespace tenon

#endif  // TENON_SERVER_SCHEDULER_SCHEDULER_H_
