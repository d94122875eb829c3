#include "adapters/residency/adapter_cache.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"
#include "adapters/base/thread_priority.h"

namespace tenon {
namespace {

void RunAll(std::vector<absl::AnyInvocable<void()>> callbacks) {
  for (absl::AnyInvocable<void()>& callback : callbacks) {
    callback();
  }
}

absl::Status TooLargeError(int64_t num_bytes, int64_t budget_bytes) {
  return QuotaExceededError(
      "ADAPTER_CACHE_TOO_SMALL", "adapter_device_bytes",
      absl::StrCat("adapter needs ", num_bytes, " bytes, more than the adapter cache's budget of ",
                   budget_bytes));
}

absl::Status NoRoomError(int64_t pinned_bytes, int64_t budget_bytes) {
  return QuotaExceededError("ADAPTER_CACHE_TOO_SMALL", "adapter_device_bytes",
                            absl::StrCat("the request's adapters together need more than the ",
                                         budget_bytes - pinned_bytes,
                                         " bytes that pinned adapters leave of ", budget_bytes));
}

}  // namespace

AdapterClaim& AdapterClaim::operator=(AdapterClaim&& other) noexcept {
  if (this != &other) {
    Release();
    cache_ = std::exchange(other.cache_, nullptr);
    digests_ = std::move(other.digests_);
  }
  return *this;
}

void AdapterClaim::Release() {
  if (cache_ != nullptr) {
    std::exchange(cache_, nullptr)->ReleaseClaim(digests_);
  }
}

AdapterCache::AdapterCache(int64_t budget_bytes, Load load, AdapterCacheOptions options)
    : budget_bytes_(budget_bytes),
      load_(std::move(load)),
      options_(std::move(options)),
      room_(budget_bytes) {
  for (int i = 0; i < options_.num_loaders; ++i) {
    loaders_.emplace_back([this] { RunLoader(); });
  }
}

AdapterCache::~AdapterCache() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  for (std::thread& loader : loaders_) {
    loader.join();
  }
}

void AdapterCache::RunLoader() {
  LowerThreadPriority();
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
    const absl::Time begin = options_.clock();
    absl::StatusOr<Compiled> loaded = load_(*next);
    FinishLoad(next->digest, std::move(loaded), options_.clock() - begin);
  }
}

bool AdapterCache::MayRetry(const Entry& entry) const {
  return entry.residency == Residency::kFailed && options_.clock() >= entry.retry_at;
}

void AdapterCache::Touch(Entry& entry) {
  recency_.splice(recency_.begin(), recency_, entry.recency);
  entry.last_used = options_.clock();
}

bool AdapterCache::Start(const AdapterHandle& adapter, OnDone* on_done) {
  const auto [found, is_new] = entries_.try_emplace(adapter->digest);
  Entry& entry = found->second;
  if (is_new || MayRetry(entry)) {
    entry = Entry();
    queue_.push_back(adapter);
  }
  if (entry.residency == Residency::kLoading) {
    ++stats_.misses;
    entry.waiters.push_back(std::move(*on_done));
    return true;
  }
  if (entry.residency == Residency::kResident) {
    ++stats_.hits;
    ++entry.hits;
    entry.doomed = false;  // wanted again
    Touch(entry);
  }
  return false;
}

void AdapterCache::Prefetch(const AdapterHandle& adapter, OnDone on_done) {
  {
    absl::MutexLock lock(&mutex_);
    if (Start(adapter, &on_done)) {
      return;
    }
  }
  on_done();
}

absl::StatusOr<AdapterClaim> AdapterCache::TryClaim(std::span<const AdapterHandle> adapters,
                                                    bool first_in_line,
                                                    const std::function<void()>& wake) {
  std::vector<AdapterRoom::Want> wants;
  std::vector<std::string> digests;
  for (const AdapterHandle& adapter : adapters) {
    wants.push_back({adapter->digest, adapter->resident_bytes});
    digests.push_back(adapter->digest);
  }
  switch (room_.Claim(wants, first_in_line)) {
    case AdapterRoom::Verdict::kWait:
      return AdapterClaim();
    case AdapterRoom::Verdict::kNever:
      return NoRoomError(room_.pinned_bytes(), budget_bytes_);
    case AdapterRoom::Verdict::kTaken:
      break;
  }
  for (const AdapterHandle& adapter : adapters) {
    OnDone on_done = wake;
    Start(adapter, &on_done);
  }
  return AdapterClaim(this, std::move(digests));
}

absl::StatusOr<AdapterClaim> AdapterCache::Claim(std::span<const AdapterHandle> adapters,
                                                 const std::function<void()>& wake) {
  absl::MutexLock lock(&mutex_);
  return TryClaim(adapters, !contended_, wake);
}

absl::StatusOr<AdapterClaim> AdapterCache::ClaimFirst(std::span<const AdapterHandle> adapters,
                                                      absl::Duration waited,
                                                      const std::function<void()>& wake) {
  absl::MutexLock lock(&mutex_);
  absl::StatusOr<AdapterClaim> claim = TryClaim(adapters, /*first_in_line=*/true, wake);
  if (!claim.ok() || *claim) {
    room_.EndDrain();
  } else if (waited >= options_.drain_after) {
    std::vector<AdapterRoom::Want> wants;
    for (const AdapterHandle& adapter : adapters) {
      wants.push_back({adapter->digest, adapter->resident_bytes});
    }
    room_.Drain(wants);
  }
  return claim;
}

void AdapterCache::SetContended(bool contended) {
  absl::MutexLock lock(&mutex_);
  contended_ = contended;
  if (!contended) {
    room_.EndDrain();  // who was first in line may have been cancelled
  }
}

void AdapterCache::ReleaseClaim(std::span<const std::string> digests) {
  std::vector<Compiled> gone;
  absl::MutexLock lock(&mutex_);
  for (const std::string& digest : digests) {
    room_.Release(digest);
    gone.push_back(TakeDoomed(digest));
  }
}

absl::Status AdapterCache::PinResident(const AdapterHandle& adapter, OnDone on_done) {
  {
    absl::MutexLock lock(&mutex_);
    if (!room_.Pin({adapter->digest, adapter->resident_bytes})) {
      return QuotaExceededError(
          "PINNED_BYTES", "adapter_device_bytes",
          absl::StrCat("adapter ", adapter.id().ToString(), " needs ", adapter->resident_bytes,
                       " bytes; with the ", room_.pinned_bytes(),
                       " that are pinned already, that is more than half of the budget of ",
                       budget_bytes_));
    }
    if (Start(adapter, &on_done)) {
      return absl::OkStatus();
    }
  }
  on_done();
  return absl::OkStatus();
}

bool AdapterCache::Unpin(const std::string& digest) {
  Compiled gone;
  absl::MutexLock lock(&mutex_);
  const bool was_pinned = room_.Unpin(digest);
  gone = TakeDoomed(digest);
  return was_pinned;
}

void AdapterCache::FinishLoad(const std::string& digest, absl::StatusOr<Compiled> loaded,
                              absl::Duration load_time) {
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
      MakeResident(digest, *std::move(loaded), load_time, &evicted);
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
    MakeResident(digest, std::move(compiled), absl::ZeroDuration(), &evicted);
  }
  RunAll(std::move(waiters));
}

void AdapterCache::MakeResident(const std::string& digest, Compiled compiled,
                                absl::Duration load_time, std::vector<Compiled>* evicted) {
  Entry& entry = entries_[digest];
  ++stats_.num_resident;
  stats_.resident_bytes += compiled->resident_bytes();
  entry.residency = Residency::kResident;
  entry.compiled = std::move(compiled);
  entry.last_used = options_.clock();
  entry.load_time = load_time;
  entry.failure = absl::OkStatus();
  entry.recency = recency_.insert(recency_.begin(), digest);
  EvictToBudget(digest, evicted);
}

void AdapterCache::EvictToBudget(const std::string& kept, std::vector<Compiled>* evicted) {
  auto next = recency_.end();
  while (stats_.resident_bytes > budget_bytes_ && next != recency_.begin()) {
    const auto candidate = std::prev(next);
    // Only Pin adds owners, under this mutex, so a count of one cannot grow meanwhile.
    const bool in_use = entries_.at(*candidate).compiled.use_count() > 1;
    if (in_use || room_.is_held(*candidate) || *candidate == kept) {
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
  num_departures_.fetch_add(1, std::memory_order_release);
  return compiled;
}

AdapterCache::Compiled AdapterCache::TakeDoomed(const std::string& digest) {
  const auto found = entries_.find(digest);
  if (found == entries_.end() || !found->second.doomed || room_.is_held(digest)) {
    return nullptr;
  }
  ++stats_.evictions;
  return RemoveResident(digest);
}

Residency AdapterCache::state(const std::string& digest) const {
  absl::MutexLock lock(&mutex_);
  const auto found = entries_.find(digest);
  if (found == entries_.end() || MayRetry(found->second)) {
    return Residency::kCold;
  }
  return found->second.residency;
}

AdapterResidency AdapterCache::Describe(const std::string& digest) const {
  absl::MutexLock lock(&mutex_);
  AdapterResidency description;
  description.num_claims = room_.num_claims(digest);
  description.pinned = room_.is_pinned(digest);
  const auto found = entries_.find(digest);
  if (found == entries_.end() || MayRetry(found->second)) {
    return description;
  }
  const Entry& entry = found->second;
  description.state = entry.residency;
  if (entry.residency == Residency::kResident) {
    description.resident_bytes = entry.compiled->resident_bytes();
    description.last_used = entry.last_used;
    description.hits = entry.hits;
    description.load_time = entry.load_time;
  }
  return description;
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
  Touch(entry);
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
  found->second.doomed = true;
  evicted = TakeDoomed(digest);
}

void AdapterCache::Forget(const std::string& digest) {
  Unpin(digest);
  Evict(digest);
  if (on_forget_) {
    on_forget_(digest);
  }
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
  stats.held_bytes = room_.held_bytes();
  stats.pinned_bytes = room_.pinned_bytes();
  return stats;
}

}  // namespace tenon
