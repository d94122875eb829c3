// AdapterMeter: what adapters cost while nobody uses them, for the usage ledger.
#ifndef TENON_SERVER_ADAPTER_METER_H_
#define TENON_SERVER_ADAPTER_METER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "adapters/registry/adapter_registry.h"
#include "server/tenant/usage_ledger.h"

namespace tenon {

/// Counts loads as they happen, and looks at each flush of the ledger which adapters are resident:
/// the time since the last look is charged to the owners of those that are. Two versions with the
/// same bytes are one copy in memory, and are charged to each of their owners.
///
/// Thread-safe.
class AdapterMeter {
 public:
  struct Sources {
    std::function<absl::Time()> clock;
    std::function<std::vector<std::string>()> tenants;
    const AdapterRegistry* registry = nullptr;  ///< borrowed
    /// AdapterCache::resident_bytes.
    std::function<absl::flat_hash_map<std::string, int64_t>()> resident_bytes;
  };
  explicit AdapterMeter(Sources sources);

  void CountLoad(const AdapterId& id) ABSL_LOCKS_EXCLUDED(mutex_);

  /// Adds what came since the last call. UsageLedger's before_flush.
  void AddTo(UsageLedger& ledger) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  const Sources sources_;
  absl::Mutex mutex_;
  absl::Time last_ ABSL_GUARDED_BY(mutex_);
  std::map<std::pair<std::string, std::string>, int64_t> loads_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tenon

#endif  // TENON_SERVER_ADAPTER_METER_H_
