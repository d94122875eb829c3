// AdapterCache: which adapters are resident, and the loader thread that makes them so.
#ifndef TENON_ADAPTERS_RESIDENCY_ADAPTER_CACHE_H_
#define TENON_ADAPTERS_RESIDENCY_ADAPTER_CACHE_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <list>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <utility>
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
#include "adapters/residency/adapter_room.h"

namespace tenon {

/// Where an adapter's tensors are.
enum class Residency { kCold, kLoading, kResident, kFailed };

struct AdapterCacheStats {
  int64_t num_resident = 0, resident_bytes = 0, budget_bytes = 0;
  int64_t held_bytes = 0;        ///< of adapters that are claimed or pinned
  int64_t pinned_bytes = 0;      ///< of adapters that SetPinned keeps
  int64_t hits = 0, misses = 0;  ///< adapters that a request found resident, or not
  int64_t loads = 0, failed_loads = 0, evictions = 0;
};

/// What is known of one adapter that is not cold.
struct AdapterResidency {
  Residency state = Residency::kCold;
  int64_t resident_bytes = 0;
  int64_t num_claims = 0;  ///< requests that use it or are about to
  bool pinned = false;
  absl::Time last_used = absl::InfinitePast();
  int64_t hits = 0;          ///< since it became resident
  absl::Duration load_time;  ///< reading and compiling, of the last load; zero for an upload
};

struct AdapterCacheOptions {
  /// How long after a failed load no other is tried.
  absl::Duration failure_backoff = absl::Seconds(5);
  /// How long the oldest request waits for room before adapters in use are closed to newcomers.
  absl::Duration drain_after = absl::Milliseconds(200);
  int num_loaders = 1;  ///< threads
  std::function<absl::Time()> clock = absl::Now;
};

class AdapterCache;

/// A request's claim on its adapters: while it lives they stay resident or become so. Move-only;
/// thread-safe as long as one thread at a time touches it. Ends before its cache.
class AdapterClaim {
 public:
  AdapterClaim() = default;  ///< claims nothing
  AdapterClaim(AdapterClaim&& other) noexcept { *this = std::move(other); }
  AdapterClaim& operator=(AdapterClaim&& other) noexcept;
  ~AdapterClaim() { Release(); }

  /// False for one that claims nothing.
  explicit operator bool() const { return cache_ != nullptr; }
  void Release();

 private:
  friend class AdapterCache;
  AdapterClaim(AdapterCache* cache, std::vector<std::string> digests)
      : cache_(cache), digests_(std::move(digests)) {}

  AdapterCache* cache_ = nullptr;
  std::vector<std::string> digests_;
};

/// Compiled adapters by content digest within a budget of bytes: what the kernels read. On a CPU
/// that is host memory.
///
/// Thread-safe. Loading runs on loader threads of low priority and never on a caller's. One load
/// per digest however many wait. An adapter that is in use, claimed or pinned is never evicted;
/// others go least recently used first. Claims are given only as far as they fit the budget
/// (AdapterRoom); it is exceeded only by what an upload has just inserted, until the next load, and
/// by tensors that somebody holds without a claim.
///
///   kCold -> kLoading -> kResident -> kCold         (evicted)
///            kLoading -> kFailed -> kCold           (the back-off is over)
///
///   StatusOr<AdapterClaim> claim = cache.Claim(adapters, wake);    // at Submit, or later
///   if (claim.ok() && *claim && cache.state(digest) == Residency::kResident) ...  // between steps
///   StatusOr<shared_ptr<const CompiledAdapter>> pin = cache.Pin(digest);
class AdapterCache {
 public:
  /// Reads and compiles one version. Runs on a loader thread.
  using Load =
      std::function<absl::StatusOr<std::shared_ptr<const CompiledAdapter>>(const AdapterInfo&)>;
  using OnDone = absl::AnyInvocable<void()>;

  AdapterCache(int64_t budget_bytes, Load load, AdapterCacheOptions options = {});
  /// Waits for the loads in progress. Callbacks that have not run by then never do.
  ~AdapterCache();
  AdapterCache(const AdapterCache&) = delete;
  AdapterCache& operator=(const AdapterCache&) = delete;

  /// Claims all of a request's adapters and starts loading those that are cold, or claims nothing
  /// when there is no room now: the result is then false, and the caller asks again when a claim
  /// has ended. `wake` is run as in Prefetch, for each adapter that is being loaded.
  /// RESOURCE_EXHAUSTED when they never fit.
  absl::StatusOr<AdapterClaim> Claim(std::span<const AdapterHandle> adapters,
                                     const std::function<void()>& wake) ABSL_LOCKS_EXCLUDED(mutex_);
  /// The same for the oldest request that waits for room, for `waited` by now: it alone takes room,
  /// and after drain_after adapters are drained for it.
  absl::StatusOr<AdapterClaim> ClaimFirst(std::span<const AdapterHandle> adapters,
                                          absl::Duration waited, const std::function<void()>& wake)
      ABSL_LOCKS_EXCLUDED(mutex_);
  /// Says whether some request waits for room: then Claim takes none.
  void SetContended(bool contended) ABSL_LOCKS_EXCLUDED(mutex_);

  /// Starts loading when cold, without a claim. `on_done` runs once, after the adapter has become
  /// resident or failed: on a loader thread (on the publisher's when Insert came first), or at
  /// once, on the caller's, when there is nothing to wait for. It may call the cache. Without a
  /// claim the adapter may be gone again by then.
  void Prefetch(const AdapterHandle& adapter, OnDone on_done) ABSL_LOCKS_EXCLUDED(mutex_);

  /// Keeps an adapter resident whether it is used or not, or no longer; loads it when it is cold,
  /// and tells `on_done` as Prefetch does. Holds until the process ends. RESOURCE_EXHAUSTED
  /// (PINNED_BYTES) when pinned adapters would take more than half of the budget; `on_done` then
  /// does not run.
  absl::Status PinResident(const AdapterHandle& adapter, OnDone on_done)
      ABSL_LOCKS_EXCLUDED(mutex_);
  /// False when it was not pinned.
  bool Unpin(const std::string& digest) ABSL_LOCKS_EXCLUDED(mutex_);

  /// Puts in what an upload has just compiled, so that its first request finds it. An adapter
  /// larger than the whole budget is not kept.
  void Insert(const std::string& digest, std::shared_ptr<const CompiledAdapter> compiled)
      ABSL_LOCKS_EXCLUDED(mutex_);

  Residency state(const std::string& digest) const ABSL_LOCKS_EXCLUDED(mutex_);
  AdapterResidency Describe(const std::string& digest) const ABSL_LOCKS_EXCLUDED(mutex_);

  /// The tensors, kept for as long as the pointer lives. UNAVAILABLE when not resident; the load's
  /// error when it failed, until the next load starts. A load that exceeds the whole budget failed
  /// with RESOURCE_EXHAUSTED.
  absl::StatusOr<std::shared_ptr<const CompiledAdapter>> Pin(const std::string& digest)
      ABSL_LOCKS_EXCLUDED(mutex_);

  /// Forgets an adapter, or its failure; one that is claimed or pinned goes when it no longer is. A
  /// load in progress goes on.
  void Evict(const std::string& digest) ABSL_LOCKS_EXCLUDED(mutex_);
  /// Forgets an adapter that is deleted: unpins and evicts it, and tells `on_forget`.
  void Forget(const std::string& digest) ABSL_LOCKS_EXCLUDED(mutex_);
  /// Told of each digest that is forgotten, on the caller's thread. Set before the first Forget.
  void set_on_forget(std::function<void(const std::string&)> on_forget) {
    on_forget_ = std::move(on_forget);
  }

  /// How many adapters have left so far. For whoever keeps something beside them: cheap to ask.
  int64_t num_departures() const { return num_departures_.load(std::memory_order_acquire); }
  AdapterCacheStats stats() const ABSL_LOCKS_EXCLUDED(mutex_);
  /// Bytes of what is resident, by digest.
  absl::flat_hash_map<std::string, int64_t> resident_bytes() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  friend class AdapterClaim;
  using Compiled = std::shared_ptr<const CompiledAdapter>;
  using Callbacks = std::vector<OnDone>;

  // A digest that is loading, resident or failed; a cold one has no entry.
  struct Entry {
    Residency residency = Residency::kLoading;
    Compiled compiled;                           // kResident
    std::list<std::string>::iterator recency;    // kResident
    bool doomed = false;                         // kResident: to go as soon as nobody holds it
    absl::Time last_used;                        // kResident
    int64_t hits = 0;                            // kResident
    absl::Duration load_time;                    // kResident
    absl::Status failure;                        // kFailed
    absl::Time retry_at = absl::InfinitePast();  // kFailed
    Callbacks waiters;                           // kLoading
  };

  bool MayRetry(const Entry& entry) const;
  void RunLoader() ABSL_LOCKS_EXCLUDED(mutex_);
  bool LoaderHasWork() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return stopping_ || !queue_.empty();
  }
  // Queues a load unless there is one or it is resident; true when `on_done` will run later.
  bool Start(const AdapterHandle& adapter, OnDone* on_done) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Touch(Entry& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<AdapterClaim> TryClaim(std::span<const AdapterHandle> adapters, bool first_in_line,
                                        const std::function<void()>& wake)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ReleaseClaim(std::span<const std::string> digests) ABSL_LOCKS_EXCLUDED(mutex_);
  void FinishLoad(const std::string& digest, absl::StatusOr<Compiled> loaded,
                  absl::Duration load_time) ABSL_LOCKS_EXCLUDED(mutex_);
  void MakeResident(const std::string& digest, Compiled compiled, absl::Duration load_time,
                    std::vector<Compiled>* evicted) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Moves adapters that nobody holds to `evicted`, oldest first, until the rest fits; spares
  // `kept`. The caller frees them after it has unlocked.
  void EvictToBudget(const std::string& kept, std::vector<Compiled>* evicted)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Takes out one that is doomed and that nobody holds any more, else null.
  Compiled TakeDoomed(const std::string& digest) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Compiled RemoveResident(const std::string& digest) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const int64_t budget_bytes_;
  const Load load_;
  const AdapterCacheOptions options_;
  std::function<void(const std::string&)> on_forget_;

  std::atomic<int64_t> num_departures_ = 0;
  mutable absl::Mutex mutex_;
  absl::flat_hash_map<std::string, Entry> entries_ ABSL_GUARDED_BY(mutex_);
  std::list<std::string> recency_ ABSL_GUARDED_BY(mutex_);   // resident digests, latest first
  std::deque<AdapterHandle> queue_ ABSL_GUARDED_BY(mutex_);  // to load, first come first
  AdapterRoom room_ ABSL_GUARDED_BY(mutex_);
  bool contended_ ABSL_GUARDED_BY(mutex_) = false;
  AdapterCacheStats stats_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> loaders_;
};

}  // namespace tenon

#endif  // TENON_ADAPTERS_RESIDENCY_ADAPTER_CACHE_H_
