#include "adapters/residency/host_tier.h"

#include <utility>
#include <vector>

namespace tenon {

std::shared_ptr<const AdapterSpec> HostTier::Find(const std::string& digest) {
  absl::MutexLock lock(&mutex_);
  const auto found = entries_.find(digest);
  ++(found == entries_.end() ? stats_.misses : stats_.hits);
  if (found == entries_.end()) {
    return nullptr;
  }
  recency_.splice(recency_.begin(), recency_, found->second.recency);
  return found->second.spec;
}

void HostTier::Insert(const std::string& digest, Spec spec, int64_t num_bytes) {
  std::vector<Spec> evicted;  // unmapped after the lock is gone
  absl::MutexLock lock(&mutex_);
  if (num_bytes > budget_bytes_ || entries_.contains(digest)) {
    return;
  }
  while (stats_.num_bytes + num_bytes > budget_bytes_) {
    const std::string oldest = recency_.back();
    evicted.push_back(Remove(oldest));
  }
  recency_.push_front(digest);
  entries_[digest] = {std::move(spec), num_bytes, recency_.begin()};
  ++stats_.num_adapters;
  stats_.num_bytes += num_bytes;
}

HostTier::Spec HostTier::Remove(const std::string& digest) {
  const auto found = entries_.find(digest);
  Spec spec = std::move(found->second.spec);
  --stats_.num_adapters;
  stats_.num_bytes -= found->second.num_bytes;
  recency_.erase(found->second.recency);
  entries_.erase(found);
  return spec;
}

void HostTier::Erase(const std::string& digest) {
  Spec erased;
  absl::MutexLock lock(&mutex_);
  if (entries_.contains(digest)) {
    erased = Remove(digest);
  }
}

bool HostTier::Contains(const std::string& digest) const {
  absl::MutexLock lock(&mutex_);
  return entries_.contains(digest);
}

HostTierStats HostTier::stats() const {
  absl::MutexLock lock(&mutex_);
  HostTierStats stats = stats_;
  stats.budget_bytes = budget_bytes_;
  return stats;
}

}  // namespace tenon
