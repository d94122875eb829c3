// AdapterCache: which adapters are resident, and the loader thread that makes them so.
#ifndef TENON_ADAPTERS_RESIDENCY_ADAPTER_CACHE_H_
#define TENON_ADAPTERS_RESIDENCY_ADAPTER_CACHE_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <memory>
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
#include "adapters/methods/compiled_adapter.h"
#include "adapters/registry/adapter_registry.h"

namespace tenon {

/// Where an adapter's tensors are.
enum class Residency { kCold, kLoading, kResident, kFailed };

struct AdapterCacheStats {
  int64_t num_resident = 0, resident_bytes = 0, budget_bytes = 0;
  int64_t hits = 0;  ///< Prefetch calls that found the adapter resident
  int64_t loads = 0, failed_loads = 0, evictions = 0;
};

struct AdapterCacheOptions {
  /// How long after a failed load Prefetch does not try again.
  absl::Duration failure_backoff = absl::Seconds(5);
  std::function<absl::Time()> clock = absl::Now;
};

/// Compiled adapters by content digest, least recently used out first, within a budget of bytes.
///
/// Thread-safe. Loading runs on one loader thread and never on a caller's. One load per digest
/// however many wait. A pinned adapter (one whose pointer somebody else holds) is never evicted;
/// the budget is exceeded only by what is pinned and by what was added last, which gets its chance
/// to be pinned. An adapter that was loaded but not pinned may go again when others are loaded: its
/// state is then kCold, and who still waits for it calls Prefetch again.
///
///   kCold -> kLoading -> kResident -> kCold         (evicted)
///            kLoading -> kFailed -> kCold           (the back-off is over)
///
///   cache.Prefetch(handle, [&engine] { engine.Wake(); });     // at Submit
///   if (cache.state(digest) == Residency::kResident) ...      // at a step boundary
///   StatusOr<shared_ptr<const CompiledAdapter>> pin = cache.Pin(digest);   // while a sequence
///   runs; drop it to unpin
class AdapterCache {
 public:
  /// Reads and compiles one version. Runs on the loader thread.
  using Load =
      std::function<absl::StatusOr<std::shared_ptr<const CompiledAdapter>>(const AdapterInfo&)>;

  AdapterCache(int64_t budget_bytes, Load load, AdapterCacheOptions options = {});
  /// Waits for the load in progress. Callbacks that have not run by then never do.
  ~AdapterCache();
  AdapterCache(const AdapterCache&) = delete;
  AdapterCache& operator=(const AdapterCache&) = delete;

  /// Starts loading when cold. `on_done` runs once, after
  /// the adapter has become resident or failed: on the loader thread (on the publisher's when
  /// Insert came first), or at once, on the caller's, when there is nothing to wait for. It may
  /// call the cache.
  void Prefetch(const AdapterHandle& adapter, absl::AnyInvocable<void()> on_done)
      ABSL_LOCKS_EXCLUDED(mutex_);

  /// Puts in what an upload has just compiled, so that its first request finds it. An adapter
  /// larger than the whole budget is not kept.
  void Insert(const std::string& digest, std::shared_ptr<const CompiledAdapter> compiled)
      ABSL_LOCKS_EXCLUDED(mutex_);

  Residency state(const std::string& digest) const ABSL_LOCKS_EXCLUDED(mutex_);

  /// The tensors, kept for as long as the pointer lives. UNAVAILABLE when not resident; the load's
  /// error when it failed, until the next load starts. A load that exceeds the whole budget failed
  /// with RESOURCE_EXHAUSTED.
  absl::StatusOr<std::shared_ptr<const CompiledAdapter>> Pin(const std::string& digest)
      ABSL_LOCKS_EXCLUDED(mutex_);

  /// Forgets an adapter, or its failure; who has it pinned keeps it. A load in progress goes on.
  void Evict(const std::string& digest) ABSL_LOCKS_EXCLUDED(mutex_);

  AdapterCacheStats stats() const ABSL_LOCKS_EXCLUDED(mutex_);
  /// Bytes of what is resident, by digest.
  absl::flat_hash_map<std::string, int64_t> resident_bytes() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  using Compiled = std::shared_ptr<const CompiledAdapter>;
  using Callbacks = std::vector<absl::AnyInvocable<void()>>;

  // A digest that is loading, resident or failed; a cold one has no entry.
  struct Entry {
    Residency residency = Residency::kLoading;
    Compiled compiled;                           // kResident
    std::list<std::string>::iterator recency;    // kResident
    absl::Status failure;                        // kFailed
    absl::Time retry_at = absl::InfinitePast();  // kFailed
    Callbacks waiters;                           // kLoading
  };

  bool MayRetry(const Entry& entry) const;
  void RunLoader() ABSL_LOCKS_EXCLUDED(mutex_);
  bool LoaderHasWork() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stopping_ || !queue_.empty();
  }
  void FinishLoad(const std::string& digest, absl::StatusOr<Compiled> loaded)
      ABSL_LOCKS_EXCLUDED(mutex_);
  void MakeResident(const std::string& digest, Compiled compiled, std::vector<Compiled>* evicted)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Moves unpinned adapters to `evicted`, oldest first, until the rest fits; spares `kept`. The
  // caller frees them after it has unlocked.
  void EvictToBudget(const std::string& kept, std::vector<Compiled>* evicted)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Compiled RemoveResident(const std::string& digest) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const int64_t budget_bytes_;
  const Load load_;
  const AdapterCacheOptions options_;

  mutable absl::Mutex mutex_;
  absl::flat_hash_map<std::string, Entry> entries_ ABSL_GUARDED_BY(mutex_);
  std::list<std::string> recency_ ABSL_GUARDED_BY(mutex_);   // resident digests, latest first
  std::deque<AdapterHandle> queue_ ABSL_GUARDED_BY(mutex_);  // to load, first come first
  AdapterCacheStats stats_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread loader_;
};

}  // namespace tenon

#endif  // TENON_ADAPTERS_RESIDENCY_ADAPTER_CACHE_H_
