// Scheduler: chooses the rows of the next step.
#ifndef TENON_SERVER_SCHEDULER_SCHEDULER_H_
#define TENON_SERVER_SCHEDULER_SCHEDULER_H_

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "server/scheduler/batch.h"
#include "server/scheduler/block_pool.h"
#include "server/scheduler/context_index.h"
#include "server/scheduler/fair_share.h"
#include "server/scheduler/kv_shares.h"
#include "server/scheduler/preemption_policy.h"
#include "server/scheduler/prefix_index.h"
#include "server/scheduler/sequence.h"
#include "server/scheduler/start_estimate.h"
#include "server/scheduler/step_plan.h"
#include "server/scheduler/waiting_queue.h"

namespace tenon {

/// What computing one token costs, for shares of service and of a step's time. A decoded token pays
/// for a pass over the weights that prompt tokens share (VTC's prices, arXiv:2401.00588, section
/// 4).
struct TokenCosts {
  double prefill = 1.0;  ///< prompt and virtual tokens
  double decode = 2.0;   ///< generated ones

  /// Of tokens [begin, end) of a sequence, by index in tokens().
  double Of(const Sequence& sequence, int64_t begin, int64_t end) const {
    const int64_t prompt_end = std::clamp(sequence.num_prompt_tokens(), begin, end);
    return prefill * static_cast<double>(prompt_end - begin) +
           decode * static_cast<double>(end - prompt_end);
  }
};

struct SchedulerOptions {
  /// Token budget of a step: decodes first, prefill chunks in what is left. At least max_sequences,
  /// so that every row of a step gets a token.
  int64_t max_batch_tokens = 512;
  int64_t max_sequences = 64;  ///< rows of a step at most, > 0
  /// Prompt and virtual tokens of a step that decodes too, at most: the longer such a step takes,
  /// the longer every answer in flight halts. So many for each sequence that has no token yet, up
  /// to eight of them: those halt as well. One a decoded row when that is more, so that prompts are
  /// not starved where decoding costs more. 0: only max_batch_tokens counts.
  int64_t prefill_chunk_tokens = 0;
  /// Virtual, prompt and generated tokens of a sequence at most, > 0.
  int64_t max_context_tokens = 0;
  std::string cache_salt;  ///< digest of the base model and dtype: the root of every KV chain
  bool prefix_cache = true;
  /// Tenants find each other's prefixes as long as no adapter is involved. Whoever measures time
  /// can then tell what others have asked; off by default.
  bool share_base_prefixes = false;
  /// Service is shared by FairShare and KvShares. When off: first come, first served, and a tenant
  /// may take everything.
  bool fair = true;
  TokenCosts costs = {};
};

/// Continuous batching with chunked prefill, automatic prefix sharing and preemption by recompute.
///
/// A step is Schedule, run, Commit. Sequences join and leave between any two steps. Who is next,
/// for a place in the batch and for the prefill budget, is FairShare's order; within a flow first
/// come, first served. A blocked sequence (paused, or without its adapter) holds nobody up.
///
/// When all rows are taken, a sequence that begins still gets one as long as another tenant has
/// more of them for its weight than its own will have then: somebody of that tenant sits the step
/// out, with all that he holds, and from then on the rows go round in fair order.
///
/// When blocks run out, a paused sequence gives up its own, else one of a tenant that holds more
/// than its share (KvShares), or a lower-priority or younger one of the same tenant. It goes back
/// to its place in the queue; its tokens are kept and computed again, free of charge, so the client
/// sees a pause and nothing else. From the oldest running sequence that is not blocked nobody takes
/// anything, and its flow's turn comes: so everybody ends at last.
///
/// The virtual tokens of a selection are computed once, when a sequence first needs them, and
/// shared by all its sequences; when the last one is gone their blocks stay cached until they are
/// needed.
///
/// Not thread-safe (engine thread), but for Fits. No clock: the caller passes the time.
/// Invariants: the sum of tokens of rows and contexts <= max_batch_tokens; a row's sequence holds
/// blocks for all its tokens in the step, and its context is computed, in this step at the latest;
/// rows are sorted so that equal selections are adjacent, merged ones last; a block that a row
/// writes is held by that row's sequence alone, one that a context row writes by users of that
/// context.
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

  /// The same within the tenant's limit on KV blocks. Thread-safe.
  bool FitsTenant(int64_t prompt_tokens, int64_t max_tokens, int64_t virtual_tokens,
                  const TenantShare& share) const;

  /// How long a sequence of that tenant would wait if it came now. Zero while nothing is known.
  absl::Duration ExpectedWait(absl::string_view tenant, absl::Time now) const;

  /// A sequence that will not start before its deadline, and how long its wait would be.
  struct LateSequence {
    SequenceId id;
    absl::Duration expected_wait;
  };
  /// Waiting sequences whose deadline would pass even if they were served twice as fast as is to
  /// be expected. Those that are next of their tenant are never among them.
  std::vector<LateSequence> LateSequences(absl::Time now) const;

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
  /// Lets contexts go of adapters that have left the device: see ContextIndex::LetGo.
  void LetContextsGo(const std::function<bool(const std::string& digest)>& is_resident) {
    context_index_.LetGo(is_resident);
  }
  /// The sequences that hold that context.
  std::vector<SequenceId> UsersOf(const Context& context) const;
  /// The sequence in flight with that id, or null.
  Sequence* Find(SequenceId id) const;

  int64_t num_waiting() const { return waiting_.size(); }
  int64_t num_running() const { return static_cast<int64_t>(running_.size()); }
  int64_t num_preemptions() const { return num_preemptions_; }

 private:
  // --- who gets a row ---
  /// The running sequences that are not blocked, oldest first.
  std::vector<Sequence*> ActiveSequences() const;
  /// Gives rows to decodes, and places to prefills, of up to max_sequences sequences.
  void PlaceRunning(std::vector<Sequence*> active, StepPlan& plan);
  void Place(Sequence* sequence, StepPlan& plan);
  /// Whether one token of it is to be computed.
  static bool IsDecode(const Sequence& sequence);
  /// Takes from what is left of the tokens what would make the step too long for its decodes.
  void BoundPrefills(StepPlan& plan) const;
  /// Shares what is left of the tokens among prefills that run and sequences that wait.
  void PlanPrefills(StepPlan& plan);
  /// The first of plan.prefills in fair order; null when there is none.
  Sequence* NextPrefill(const StepPlan& plan) const;
  /// Gives a running sequence its row and blocks; preempts it when there are none.
  void PlanRow(Sequence* sequence, StepPlan& plan);
  /// Whether the sequence's context will be computed after this step; adds to the step what is
  /// missing, as far as there are tokens left.
  bool PlanContext(Sequence& sequence, StepPlan& plan);
  /// Charges tokens [begin, end) to the sequence's flow, those apart that were charged before.
  void Charge(Sequence& sequence, int64_t begin, int64_t end);
  /// The same for the leading virtual tokens of its context, up to `end`.
  void ChargeContext(Sequence& sequence, int64_t end);
  /// Lets fair shares know who would have wanted more, and estimates who started.
  void Settle(const StepPlan& plan);

  // --- who gives up blocks ---
  /// Preempts others until the pool has that many blocks, at last `sequence` itself: false.
  bool MakeRoom(Sequence* sequence, int64_t num_blocks, StepPlan& plan);
  /// Back to the queue, with its tokens and without blocks.
  void Preempt(Sequence* sequence, StepPlan& plan);

  // --- who begins ---
  /// Whether it is better kept in the queue until its leader's prompt can be shared.
  bool AwaitsLeader(const Sequence& sequence) const;
  bool MayUsePrefixCache(const Sequence& sequence) const;
  /// What a tenant's next sequence finds.
  struct TenantRoom {
    bool has_row = false;
    bool is_idle = true;     // nothing of it runs: its limit holds nobody up
    int64_t num_blocks = 0;  // that its limit leaves
  };
  TenantRoom RoomOf(const Sequence& sequence, const StepPlan& plan) const;
  /// The first waiting sequence in fair order for which there are a row and, within its tenant's
  /// limit, blocks; null when there is none.
  Sequence* NextToStart(const StepPlan& plan) const;
  /// Who leaves its place in the step to a sequence that has just begun, of the tenant that has
  /// most places for its weight; null when none has more than the sequence's own tenant would then
  /// have.
  Sequence* FindDonor(const Sequence& sequence, const StepPlan& plan) const;
  /// Among those of one tenant, or of tenants with equally many places.
  bool SitsOutFirst(const Sequence& a, const Sequence& b) const;
  /// False, with nothing changed, when its known tokens do not fit beside what runs.
  bool TryAdmit(Sequence* sequence, StepPlan& plan);
  /// Makes a sequence that holds `cached` blocks of its own running. False when there was no room
  /// for its context after all: it waits again.
  bool Start(Sequence* sequence, std::span<const BlockId> cached, StepPlan& plan);

  // --- what came of it ---
  void CommitRow(Sequence* sequence, const BatchRow& row);
  FinishReason EndAfterLastToken(const Sequence& sequence) const;
  void ReleaseBlocks(Sequence* sequence);
  /// Notes what waiting sequences wait for, so that the time until the next step is charged to it.
  void ChargeWaiting(absl::Time now);
  std::unique_ptr<Sequence> RemoveRunning(const Sequence* sequence);
  /// Blocks that a sequence holds at most.
  int64_t NumBlocksAtMost(int64_t prompt_tokens, int64_t max_tokens, int64_t virtual_tokens) const;

  struct Tenant {
    BlockOwner owner = 0;
    StartEstimate estimate;
    int64_t num_started = 0;  // in the step under construction
  };
  Tenant& TenantOf(absl::string_view name);
  PrefixChain ChainOf(const Sequence& sequence) const;

  const SchedulerOptions options_;
  BlockPool* const pool_;
  PrefixIndex prefix_index_;
  ContextIndex context_index_;
  FairShare fair_;
  KvShares kv_shares_;
  PreemptionPolicy preemption_;
  // All that ever called: as many as there are tenants. One for all when service is not shared.
  absl::flat_hash_map<std::string, Tenant> tenants_;
  uint64_t next_ticket_ = 1;
  uint64_t num_planned_ = 0;
  WaitingQueue waiting_;
  std::vector<std::unique_ptr<Sequence>> running_;  // oldest first
  std::vector<std::unique_ptr<Sequence>> finished_;
  absl::flat_hash_map<SequenceId, Sequence*> by_id_;  // waiting and running
  int64_t num_preemptions_ = 0;
};

}  // namespace tenon

#endif  // TENON_SERVER_SCHEDULER_SCHEDULER_H_
