// HostTier: adapters whose files are in memory, checked and parsed, ready to be compiled.
#ifndef TENON_ADAPTERS_RESIDENCY_HOST_TIER_H_
#define TENON_ADAPTERS_RESIDENCY_HOST_TIER_H_

#include <cstdint>
#include <list>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "adapters/formats/adapter_spec.h"

namespace tenon {

struct HostTierStats {
  int64_t num_adapters = 0, num_bytes = 0, budget_bytes = 0;
  int64_t hits = 0, misses = 0;
};

/// The tier below the device: what a load has left to do for an adapter that is here is to compile
/// it, without the digest of its files, their parsing and the search for NaN.
///
/// By content digest, least recently used out first, within a budget of bytes of files. The files
/// are mapped, so that these bytes are page cache, which the kernel may drop and read again, until
/// the mapping goes. Thread-safe.
class HostTier {
 public:
  explicit HostTier(int64_t budget_bytes) : budget_bytes_(budget_bytes) {}

  /// Null when it is not here. Counts.
  std::shared_ptr<const AdapterSpec> Find(const std::string& digest) ABSL_LOCKS_EXCLUDED(mutex_);
  /// `num_bytes` are those of the files. One larger than the budget is not kept.
  void Insert(const std::string& digest, std::shared_ptr<const AdapterSpec> spec, int64_t num_bytes)
      ABSL_LOCKS_EXCLUDED(mutex_);
  void Erase(const std::string& digest) ABSL_LOCKS_EXCLUDED(mutex_);
  /// Without counting.
  bool Contains(const std::string& digest) const ABSL_LOCKS_EXCLUDED(mutex_);

  HostTierStats stats() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  using Spec = std::shared_ptr<const AdapterSpec>;
  struct Entry {
    Spec spec;
    int64_t num_bytes = 0;
    std::list<std::string>::iterator recency;
  };

  Spec Remove(const std::string& digest) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const int64_t budget_bytes_;
  mutable absl::Mutex mutex_;
  absl::flat_hash_map<std::string, Entry> entries_ ABSL_GUARDED_BY(mutex_);
  std::list<std::string> recency_ ABSL_GUARDED_BY(mutex_);  // latest first
  HostTierStats stats_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tenon

#endif  // TENON_ADAPTERS_RESIDENCY_HOST_TIER_H_
