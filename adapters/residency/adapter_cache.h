// AdapterCache: which adapters are resident, and the loader thread that makes them so.
#ifndef TENON_ADAPTERS_RESIDENCY_ADAPTER_CACHE_H_
#define TENON_ADAPTERS_RESIDENCY_ADAPTER_CACHE_H_

#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "adapters/methods/compiled_adapter.h"
#include "adapters/registry/adapter_registry.h"

namespace tenon {

/// Where an adapter's tensors are.
enum class Residency { kCold, kLoading, kResident, kFailed };

struct AdapterCacheStats {
  int64_t num_resident = 0, resident_bytes = 0, budget_bytes = 0;
  int64_t hits = 0, loads = 0, failed_loads = 0, evictions = 0;
};

/// Compiled adapters by content digest, within a budget of bytes.
///
/// Thread-safe. Loading runs on one loader thread and never on a caller's. One load per digest
/// however many wait. Pinned adapters are never evicted; the budget may be exceeded by what is
/// pinned, never by what is not.
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

  AdapterCache(int64_t budget_bytes, Load load);
  ~AdapterCache();
  AdapterCache(const AdapterCache&) = delete;
  AdapterCache& operator=(const AdapterCache&) = delete;

  /// Starts loading when cold. `on_done` runs once, on the loader thread or at once when nothing is
  /// to be done, after the adapter has become resident or failed.
  void Prefetch(const AdapterHandle& adapter, absl::AnyInvocable<void()> on_done)
      ABSL_LOCKS_EXCLUDED(mutex_);

  /// Puts in what an upload has just compiled, so that its first request finds it.
  void Insert(const std::string& digest, std::shared_ptr<const CompiledAdapter> compiled)
      ABSL_LOCKS_EXCLUDED(mutex_);

  Residency state(const std::string& digest) const ABSL_LOCKS_EXCLUDED(mutex_);

  /// The tensors, kept for as long as the pointer lives. UNAVAILABLE when not resident; the load's
  /// error when it failed (which also forgets the failure, so that a later Prefetch tries again).
  absl::StatusOr<std::shared_ptr<const CompiledAdapter>> Pin(const std::string& digest)
      ABSL_LOCKS_EXCLUDED(mutex_);

  /// Forgets an adapter; who has it pinned keeps it.
  void Evict(const std::string& digest) ABSL_LOCKS_EXCLUDED(mutex_);

  AdapterCacheStats stats() const ABSL_LOCKS_EXCLUDED(mutex_);
};

}  // namespace tenon

#endif  // TENON_ADAPTERS_RESIDENCY_ADAPTER_CACHE_H_
