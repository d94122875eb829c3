#include "adapters/residency/adapter_cache.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"

namespace tenon {
namespace {

void RunAll(std::vector<absl::AnyInvocable<void()>> callbacks) {
  for (absl::AnyInvocable<void()>& callback : callbacks) {
    callback();
  }
}

absl::Status TooLargeError(int64_t num_bytes, int64_t budget_bytes) {
  return QuotaExceededError(
      "ADAPTER_CACHE_TOO_SMALL", "adapter_cache_bytes",
      absl::StrCat("adapter needs ", num_bytes, " bytes, more than the adapter cache's budget of ",
                   budget_bytes));
}

}  // namespace

AdapterCache::AdapterCache(int64_t budget_bytes, Load load, AdapterCacheOptions options)
    : budget_bytes_(budget_bytes), load_(std::move(load)), options_(std::move(options)) {
  loader_ = std::thread([this] { RunLoader(); });
}

AdapterCache::~AdapterCache() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  loader_.join();
}

void AdapterCache::RunLoader() {
  while (true) {
    AdapterHandle next;
    {
      absl::MutexLock lock(&mutex_, absl::Condition(this, &AdapterCache::LoaderHasWork));
      if (stopping_) {
        return;
      }
      next = std::move(queue_.front());
      queue_.pop_front();
    }
    FinishLoad(next->digest, load_(*next));
  }
}

bool AdapterCache::MayRetry(const Entry& entry) const {
  return entry.residency == Residency::kFailed && options_.clock() >= entry.retry_at;
}

void AdapterCache::Prefetch(const AdapterHandle& adapter, absl::AnyInvocable<void()> on_done) {
  {
    absl::MutexLock lock(&mutex_);
    const auto [found, is_new] = entries_.try_emplace(adapter->digest);
    Entry& entry = found->second;
    if (is_new || MayRetry(entry)) {
      entry = Entry();
      queue_.push_back(adapter);
    }
    if (entry.residency == Residency::kLoading) {
      entry.waiters.push_back(std::move(on_done));
      return;
    }
    if (entry.residency == Residency::kResident) {
      ++stats_.hits;
      recency_.splice(recency_.begin(), recency_, entry.recency);
    }
  }
  on_done();
}

void AdapterCache::FinishLoad(const std::string& digest, absl::StatusOr<Compiled> loaded) {
  std::vector<Compiled> evicted;
  Callbacks waiters;
  {
    absl::MutexLock lock(&mutex_);
    if (stopping_) {
      return;
    }
    if (loaded.ok() && (*loaded)->resident_bytes() > budget_bytes_) {
      loaded = TooLargeError((*loaded)->resident_bytes(), budget_bytes_);
    }
    ++(loaded.ok() ? stats_.loads : stats_.failed_loads);
    const auto found = entries_.find(digest);
    if (found == entries_.end() || found->second.residency != Residency::kLoading) {
      return;  // Insert was faster, and has told the waiters.
    }
    waiters = std::exchange(found->second.waiters, {});
    if (loaded.ok()) {
      MakeResident(digest, *std::move(loaded), &evicted);
    } else {
      found->second.residency = Residency::kFailed;
      found->second.failure = loaded.status();
      found->second.retry_at = options_.clock() + options_.failure_backoff;
    }
  }
  RunAll(std::move(waiters));
}

void AdapterCache::Insert(const std::string& digest, Compiled compiled) {
  std::vector<Compiled> evicted;
  Callbacks waiters;
  {
    absl::MutexLock lock(&mutex_);
    if (compiled->resident_bytes() > budget_bytes_) {
      return;
    }
    Entry& entry = entries_[digest];
    if (entry.residency == Residency::kResident) {
      return;
    }
    waiters = std::exchange(entry.waiters, {});
    MakeResident(digest, std::move(compiled), &evicted);
  }
  RunAll(std::move(waiters));
}

void AdapterCache::MakeResident(const std::string& digest, Compiled compiled,
                                std::vector<Compiled>* evicted) {
  Entry& entry = entries_[digest];
  ++stats_.num_resident;
  stats_.resident_bytes += compiled->resident_bytes();
  entry.residency = Residency::kResident;
  entry.compiled = std::move(compiled);
  entry.failure = absl::OkStatus();
  entry.recency = recency_.insert(recency_.begin(), digest);
  EvictToBudget(digest, evicted);
}

void AdapterCache::EvictToBudget(const std::string& kept, std::vector<Compiled>* evicted) {
  auto next = recency_.end();
  while (stats_.resident_bytes > budget_bytes_ && next != recency_.begin()) {
    const auto candidate = std::prev(next);
    // Only Pin adds owners, under this mutex, so a count of one cannot grow meanwhile.
    const bool pinned = entries_.at(*candidate).compiled.use_count() > 1;
    if (pinned || *candidate == kept) {
      next = candidate;
      continue;
    }
    const std::string digest = *candidate;  // RemoveResident destroys the list's copy.
    evicted->push_back(RemoveResident(digest));
    ++stats_.evictions;
  }
}

AdapterCache::Compiled AdapterCache::RemoveResident(const std::string& digest) {
  const auto found = entries_.find(digest);
  Compiled compiled = std::move(found->second.compiled);
  --stats_.num_resident;
  stats_.resident_bytes -= compiled->resident_bytes();
  recency_.erase(found->second.recency);
  entries_.erase(found);
  return compiled;
}

Residency AdapterCache::state(const std::string& digest) const {
  absl::MutexLock lock(&mutex_);
  const auto found = entries_.find(digest);
  if (found == entries_.end() || MayRetry(found->second)) {
    return Residency::kCold;
  }
  return found->second.residency;
}

absl::StatusOr<std::shared_ptr<const CompiledAdapter>> AdapterCache::Pin(
    const std::string& digest) {
  absl::MutexLock lock(&mutex_);
  const auto found = entries_.find(digest);
  if (found == entries_.end() || found->second.residency == Residency::kLoading) {
    return absl::UnavailableError("the adapter is not resident");
  }
  Entry& entry = found->second;
  if (entry.residency == Residency::kFailed) {
    return entry.failure;
  }
  recency_.splice(recency_.begin(), recency_, entry.recency);
  return entry.compiled;
}

void AdapterCache::Evict(const std::string& digest) {
  Compiled evicted;
  absl::MutexLock lock(&mutex_);
  const auto found = entries_.find(digest);
  if (found == entries_.end() || found->second.residency == Residency::kLoading) {
    return;
  }
  if (found->second.residency == Residency::kFailed) {
    entries_.erase(found);
    return;
  }
  evicted = RemoveResident(digest);
  ++stats_.evictions;
}

absl::flat_hash_map<std::string, int64_t> AdapterCache::resident_bytes() const {
  absl::flat_hash_map<std::string, int64_t> bytes;
  absl::MutexLock lock(&mutex_);
  for (const auto& [digest, entry] : entries_) {
    if (entry.residency == Residency::kResident) {
      bytes.emplace(digest, entry.compiled->resident_bytes());
    }
  }
  return bytes;
}

AdapterCacheStats AdapterCache::stats() const {
  absl::MutexLock lock(&mutex_);
  AdapterCacheStats stats = stats_;
  stats.budget_bytes = budget_bytes_;
  return stats;
}

}  // namespace tenon
