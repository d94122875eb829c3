// MergeTier: which selections run on weights of their own, and the thread that makes these.
#ifndef TENON_SERVER_ENGINE_MERGE_TIER_H_
#define TENON_SERVER_ENGINE_MERGE_TIER_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "adapters/registry/adapter_selection.h"
#include "adapters/residency/adapter_cache.h"
#include "adapters/residency/merge_policy.h"
#include "server/model/decoder.h"
#include "server/model/merged_weights.h"
#include "server/scheduler/batch.h"

namespace tenon {

/// The merged selections of one moment, by AdapterSelection::key(). Immutable once published.
using MergedSet = absl::flat_hash_map<std::string, std::shared_ptr<const MergedWeights>>;

/// Who decides whether a selection is merged.
enum class MergeMode { kAuto, kAlways, kNever };

enum class MergeState { kUnmerged, kMerging, kMerged };

/// What is known of one selection; of those that are merged, being merged, or under an override.
struct MergeStatus {
  MergeMode mode = MergeMode::kAuto;
  MergeState state = MergeState::kUnmerged;
  int64_t nbytes = 0;         ///< of its own weights, when merged
  absl::Duration merge_time;  ///< how long they took to compute
  absl::Time merged_at = absl::InfinitePast();
};

/// The end of one merge.
struct MergeEvent {
  /// "tenant/name@version", joined by '+', with "=weight" where that is not 1.
  std::string adapters;
  absl::Status status;
  int64_t nbytes = 0;  ///< of the copy
  absl::Duration took;
};

struct MergeTierStats {
  int64_t num_merged = 0, merged_bytes = 0, budget_bytes = 0;
  int64_t merges = 0, failed_merges = 0, unmerges = 0;
};

/// The top tier of residency: selections whose deltas are folded into a private copy of the weights
/// that they touch. Computed layer by layer on a worker of low priority while the engine runs on;
/// the engine takes what is merged from the next step on. Unmerging drops the copy.
///
///   unmerged -> merging -> merged -> unmerged      (by the policy's advice, or an operator's)
///
/// Copies take `budget_bytes` at most, also while they are made. An override (SetMode) holds until
/// the next one or the end of the process, and takes room from what the policy had merged.
///
/// Thread-safe. Outlives the engine and all sets that it gave out; the cache outlives it.
class MergeTier {
 public:
  struct Options {
    int64_t budget_bytes = 0;
    MergePolicyOptions policy;
    /// After a merge that failed or found no room, the policy's advice is not taken for this long.
    absl::Duration retry_after = absl::Minutes(1);
    std::function<absl::Time()> clock = absl::Now;
    /// Told of each merge that has ended, with its error when it failed; on the worker. May be
    /// empty.
    std::function<void(const MergeEvent&)> on_merge;
  };

  MergeTier(Options options, std::shared_ptr<const Decoder> decoder, AdapterCache* cache);
  /// Gives up the merge in progress; callbacks that have not run by then never do.
  ~MergeTier();
  MergeTier(const MergeTier&) = delete;
  MergeTier& operator=(const MergeTier&) = delete;

  /// kAlways: merges, whatever its share; loads its adapters first when they are cold. kNever:
  /// unmerges, whatever its share. kAuto: leaves it to the policy, in the state that it has.
  /// `done` runs once, on the worker or at once on the caller's thread: when it is merged, or with
  /// RESOURCE_EXHAUSTED (MERGED_BYTES) when the budget has no room or is 0, FAILED_PRECONDITION
  /// (NOTHING_TO_MERGE), the load's error, or ABORTED when another call changed the mode meanwhile.
  /// A failed kAlways leaves kAuto behind.
  void SetMode(const std::shared_ptr<const AdapterSelection>& selection, MergeMode mode,
               absl::AnyInvocable<void(absl::Status)> done) ABSL_LOCKS_EXCLUDED(mutex_);

  /// Drops everything that is known of selections with that adapter, which no request will name any
  /// more. Overrides go, too.
  void Forget(const std::string& digest) ABSL_LOCKS_EXCLUDED(mutex_);

  MergeStatus status(const std::string& key) const ABSL_LOCKS_EXCLUDED(mutex_);
  MergeTierStats stats() const ABSL_LOCKS_EXCLUDED(mutex_);

  // --- the engine thread ---
  /// What is merged now. Never null.
  std::shared_ptr<const MergedSet> merged() const ABSL_LOCKS_EXCLUDED(mutex_);
  /// Counts the tokens of a step and takes the policy's advice. Never waits for a merge.
  void Observe(const Batch& batch, absl::Time now) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  using Done = absl::AnyInvocable<void(absl::Status)>;
  using Pins = std::vector<std::shared_ptr<const CompiledAdapter>>;
  using Weights = std::unique_ptr<const MergedWeights>;

  // Held by a load's callback as well, which may run after this tier is gone.
  class Signal {
   public:
    void Set() ABSL_LOCKS_EXCLUDED(mutex_) {
      absl::MutexLock lock(&mutex_);
      set_ = true;
    }
    void Await() ABSL_LOCKS_EXCLUDED(mutex_) {
      absl::MutexLock lock(&mutex_);
      mutex_.Await(absl::Condition(&set_));
    }

   private:
    absl::Mutex mutex_;
    bool set_ ABSL_GUARDED_BY(mutex_) = false;
  };

  struct Entry {
    MergeStatus status;
    std::vector<std::string> digests;  // of its adapters
    std::vector<Done> waiters;         // of SetMode(kAlways)
    bool forgotten = false;            // its merge in progress is to be given up
  };

  bool HasWork() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stopping_ || !jobs_.empty() || !discarded_.empty();
  }
  void RunWorker() ABSL_LOCKS_EXCLUDED(mutex_);
  void RunJob(const AdapterSelection& selection) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::StatusOr<Weights> Compute(const AdapterSelection& selection) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::StatusOr<Pins> PinAll(const AdapterSelection& selection) ABSL_LOCKS_EXCLUDED(mutex_);
  absl::Status AwaitLoad(const AdapterHandle& adapter) ABSL_LOCKS_EXCLUDED(mutex_);
  // Room for the next copy, if need be that of copies which are on their way out, or which the
  // policy had merged when an operator asks.
  absl::Status Reserve(const std::string& key, int64_t nbytes) ABSL_LOCKS_EXCLUDED(mutex_);
  void Finish(const std::string& key, absl::StatusOr<Weights> computed, absl::Duration took)
      ABSL_LOCKS_EXCLUDED(mutex_);
  bool Cancelled(const std::string& key) const ABSL_LOCKS_EXCLUDED(mutex_);
  void FreeDiscarded() ABSL_LOCKS_EXCLUDED(mutex_);

  void AddJob(const std::shared_ptr<const AdapterSelection>& selection)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Publishes a set without the key, with `weights` under it unless null. The old set is to be
  // dropped after the lock: it may be the last that holds its weights.
  [[nodiscard]] std::shared_ptr<const MergedSet> Replace(
      const std::string& key, std::shared_ptr<const MergedWeights> weights)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  [[nodiscard]] std::shared_ptr<const MergedSet> Unmerge(const std::string& key)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Drops an entry that says nothing.
  void EraseIfIdle(const std::string& key) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void TakeAdvice(absl::Time now) ABSL_LOCKS_EXCLUDED(mutex_);
  // Weights whose last user, on whatever thread, hands them to the worker to be freed.
  std::shared_ptr<const MergedWeights> Share(Weights weights);

  const Options options_;
  const std::shared_ptr<const Decoder> decoder_;
  AdapterCache* const cache_;

  // The engine thread's.
  MergePolicy policy_;
  absl::Time next_advice_ = absl::InfinitePast();
  std::optional<std::string> wanted_;  // to be merged when a batch shows its selection

  mutable absl::Mutex mutex_;
  std::map<std::string, Entry> entries_ ABSL_GUARDED_BY(mutex_);  // by selection key
  std::shared_ptr<const MergedSet> set_ ABSL_GUARDED_BY(mutex_);
  std::deque<std::shared_ptr<const AdapterSelection>> jobs_ ABSL_GUARDED_BY(mutex_);
  std::vector<Weights> discarded_ ABSL_GUARDED_BY(mutex_);
  int64_t live_bytes_ ABSL_GUARDED_BY(mutex_) = 0;  // of all copies, until they are freed
  absl::flat_hash_map<std::string, absl::Time> not_before_ ABSL_GUARDED_BY(mutex_);  // see Options
  std::shared_ptr<Signal> awaited_ ABSL_GUARDED_BY(mutex_);  // the load that the worker waits for
  MergeTierStats stats_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread worker_;  // last: starts when everything above is there
};

}  // namespace tenon

#endif  // TENON_SERVER_ENGINE_MERGE_TIER_H_
