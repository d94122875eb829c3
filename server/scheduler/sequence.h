// Sequence: one generation in flight.
#ifndef TENON_SERVER_SCHEDULER_SEQUENCE_H_
#define TENON_SERVER_SCHEDULER_SEQUENCE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "adapters/registry/adapter_selection.h"
#include "server/scheduler/context.h"
#include "server/scheduler/fair_share.h"
#include "server/scheduler/prefix_index.h"
#include "server/scheduler/sampling_params.h"

namespace tenon {

using SequenceId = uint64_t;

/// Why a sequence ended.
enum class FinishReason {
  kNone,
  kStopToken,  ///< the stop token is the last of tokens() and is counted; readers leave it out of
               ///< the text
  kStopString,
  kMaxTokens,
  kContextLength,
  kCancelled,
  kDeadline,
  kError
};

/// Where a sequence's time went. Each begins at zero and only grows; their sum is the time since
/// arrival.
struct SequenceTimings {
  absl::Duration queue;         ///< waiting for a place in the batch, preemptions included
  absl::Duration adapter_wait;  ///< waiting for its adapter to become resident
  absl::Duration prefill;       ///< from the first scheduled step to the first token
  absl::Duration decode;        ///< from the first to the last token
};

/// One generation in flight: its tokens, how far the model has computed them, and the KV blocks
/// that hold them.
///
/// Not thread-safe: owned by the engine thread from Submit on.
/// Invariants: num_computed <= tokens.size(); blocks cover the context and num_computed tokens or
/// more; a finished sequence holds neither blocks nor a context.
class Sequence {
 public:
  struct Options {
    SequenceId id = 0;
    std::string request_id;
    std::string tenant;
    std::shared_ptr<const AdapterSelection> selection;  ///< never null; empty selection = base
    std::vector<int32_t> prompt;                        ///< at least one token
    SamplingParams sampling;
    int32_t sample_index = 0;  ///< which of the request's n samples
    /// The request's sample 0. Until that one's prompt is computed this one stays in the queue, so
    /// that it finds the prompt's blocks in the prefix cache instead of computing them again.
    std::optional<SequenceId> leader;
    absl::Time arrival;
    absl::Time deadline = absl::InfiniteFuture();
    int32_t priority = 0;    ///< within its tenant, [kMinPriority, kMaxPriority]
    TenantShare share = {};  ///< its tenant's
    /// Its rows may only be computed in ways that have the same bits in every batch.
    bool deterministic = false;
  };

  explicit Sequence(Options options);

  SequenceId id() const { return options_.id; }
  const std::string& request_id() const { return options_.request_id; }
  const std::string& tenant() const { return options_.tenant; }
  const std::shared_ptr<const AdapterSelection>& selection() const { return options_.selection; }
  const SamplingParams& sampling() const { return options_.sampling; }
  int32_t sample_index() const { return options_.sample_index; }
  absl::Time arrival() const { return options_.arrival; }
  absl::Time deadline() const { return options_.deadline; }
  const std::optional<SequenceId>& leader() const { return options_.leader; }
  int32_t priority() const { return options_.priority; }
  const TenantShare& share() const { return options_.share; }
  bool deterministic() const { return options_.deterministic; }
  /// Whom its service is charged to; null when it is not in flight.
  FairShare::Flow* flow() const { return flow_; }
  /// Whose its blocks are: its tenant's number.
  BlockOwner owner() const { return owner_; }

  /// Place in the order of arrival, given by Scheduler::Add; smaller is older.
  uint64_t ticket() const { return ticket_; }

  /// Prompt, then generated tokens.
  const std::vector<int32_t>& tokens() const { return tokens_; }
  int64_t num_tokens() const { return static_cast<int64_t>(tokens_.size()); }
  int64_t num_prompt_tokens() const { return num_prompt_tokens_; }
  int64_t num_generated_tokens() const { return num_tokens() - num_prompt_tokens_; }
  /// Virtual tokens in front: token i of tokens() has position num_virtual_tokens() + i.
  int64_t num_virtual_tokens() const { return options_.selection->num_virtual_tokens(); }
  /// The virtual tokens, shared with others; null when there are none, or no place in the batch.
  const std::shared_ptr<Context>& context() const { return context_; }
  /// Slots that they take in `blocks`: token i of tokens() is in slot num_context_slots() + i.
  int64_t num_context_slots() const { return context_ == nullptr ? 0 : context_->num_slots(); }
  /// How many leading tokens have their KV in `blocks`.
  int64_t num_computed_tokens() const { return num_computed_tokens_; }
  /// The tokens that follow them.
  int64_t num_uncomputed_tokens() const { return num_tokens() - num_computed_tokens_; }
  /// Tokens that were found in the prefix cache when the sequence was first scheduled.
  int64_t num_cached_tokens() const { return num_cached_tokens_; }
  /// Those of the context, then its own.
  const std::vector<BlockId>& blocks() const { return blocks_; }

  /// Adds a generated token.
  void Append(int32_t token) { tokens_.push_back(token); }
  bool finished() const { return finish_reason_ != FinishReason::kNone; }
  FinishReason finish_reason() const { return finish_reason_; }

  /// A blocked sequence is passed over by the scheduler; what it holds stays. Set by the engine
  /// between steps.
  bool waiting_for_adapter() const { return waiting_for_adapter_; }
  bool paused() const { return paused_; }  ///< its outbox is full
  /// Its rows may use weights that its selection has for itself. Set by the engine between steps.
  bool merged() const { return merged_; }
  void set_merged(bool value) { merged_ = value; }
  void set_waiting_for_adapter(bool value) { waiting_for_adapter_ = value; }
  void set_paused(bool value) { paused_ = value; }
  bool blocked() const { return waiting_for_adapter_ || paused_; }

  /// Exact up to the last Schedule, Commit or Finish.
  const SequenceTimings& timings() const { return timings_; }

 private:
  friend class Scheduler;  // the only writer of the computed range, the blocks and the end

  /// What the passing time is charged to.
  enum class Phase { kQueue, kAdapterWait, kPrefill, kDecode };

  /// Charges the time since the last call to the phase that it was spent in, then begins `phase`.
  void EnterPhase(Phase phase, absl::Time now);

  Options options_;
  std::vector<int32_t> tokens_;
  int64_t num_prompt_tokens_;
  int64_t num_computed_tokens_ = 0;
  int64_t num_cached_tokens_ = 0;
  std::vector<BlockId> blocks_;
  std::shared_ptr<Context> context_;
  PrefixChain chain_;
  FairShare::Flow* flow_ = nullptr;
  BlockOwner owner_ = 0;
  int64_t charged_tokens_ = 0;  // leading tokens whose computation was charged; never falls
  int64_t charged_context_tokens_ = 0;
  uint64_t last_row_ = 0;  // the last step that it had a row in, as Scheduler counts them
  uint64_t ticket_ = 0;
  bool running_ = false;   // in Scheduler::running_, else in its queue or finished
  bool admitted_ = false;  // has been running at least once
  FinishReason finish_reason_ = FinishReason::kNone;
  bool waiting_for_adapter_ = false;
  bool paused_ = false;
  bool merged_ = false;
  SequenceTimings timings_;
  Phase phase_ = Phase::kQueue;
  absl::Time phase_since_;
};

}  // namespace tenon

#endif  // TENON_SERVER_SCHEDULER_SEQUENCE_H_
