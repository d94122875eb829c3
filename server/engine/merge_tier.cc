#include "server/engine/merge_tier.h"

#include <malloc.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"
#include "adapters/base/thread_priority.h"

namespace tenon {
namespace {

std::string NamesOf(const AdapterSelection& selection) {
  return absl::StrJoin(selection.adapters(), "+", [](std::string* out, const WeightedAdapter& a) {
    absl::StrAppend(out, a.adapter.id().ToString());
    if (a.weight != 1.0f) {
      absl::StrAppend(out, "=", a.weight);
    }
  });
}

std::vector<std::string> DigestsOf(const AdapterSelection& selection) {
  std::vector<std::string> digests;
  for (const WeightedAdapter& weighted : selection.adapters()) {
    digests.push_back(weighted.adapter->digest);
  }
  return digests;
}

absl::Status NoRoomError(int64_t nbytes, int64_t used, int64_t budget) {
  return QuotaExceededError(
      "MERGED_BYTES", "merged_bytes",
      absl::StrCat("merged weights of ", nbytes, " bytes do not fit beside the ", used,
                   " that are merged already: --merged-bytes is ", budget));
}

}  // namespace

MergeTier::MergeTier(Options options, std::shared_ptr<const Decoder> decoder, AdapterCache* cache)
    : options_(std::move(options)),
      decoder_(std::move(decoder)),
      cache_(cache),
      policy_(options_.policy),
      set_(std::make_shared<const MergedSet>()) {
  worker_ = std::thread([this] { RunWorker(); });
}

MergeTier::~MergeTier() {
  std::shared_ptr<const MergedSet> last;
  std::shared_ptr<Signal> awaited;
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
    last = std::move(set_);
    awaited = awaited_;
  }
  if (awaited != nullptr) {
    awaited->Set();
  }
  last.reset();
  worker_.join();
}

void MergeTier::RunWorker() {
  LowerThreadPriority();
  while (true) {
    FreeDiscarded();
    std::shared_ptr<const AdapterSelection> job;
    {
      absl::MutexLock lock(&mutex_, absl::Condition(this, &MergeTier::HasWork));
      if (stopping_) {
        return;
      }
      if (!jobs_.empty()) {
        job = std::move(jobs_.front());
        jobs_.pop_front();
      }
    }
    if (job != nullptr) {
      RunJob(*job);
    }
  }
}

void MergeTier::RunJob(const AdapterSelection& selection) {
  const absl::Time begin = options_.clock();
  absl::StatusOr<Weights> computed = Compute(selection);
  const absl::Duration took = options_.clock() - begin;
  if (options_.on_merge) {
    options_.on_merge({NamesOf(selection), computed.status(),
                       computed.ok() ? (*computed)->facts().nbytes : 0, took});
  }
  Finish(selection.key(), std::move(computed), took);
}

absl::StatusOr<MergeTier::Weights> MergeTier::Compute(const AdapterSelection& selection) {
  TENON_ASSIGN_OR_RETURN(const Pins pins, PinAll(selection));
  std::vector<ResolvedAdapter> adapters;
  for (size_t i = 0; i < pins.size(); ++i) {
    adapters.push_back({pins[i].get(), selection.adapters()[i].weight});
  }
  const int64_t nbytes = MergedWeights::Measure(*decoder_, adapters).nbytes;
  TENON_RETURN_IF_ERROR(Reserve(selection.key(), nbytes));
  absl::StatusOr<Weights> weights =
      MergedWeights::Merge(*decoder_, adapters, [&] { return Cancelled(selection.key()); });
  if (!weights.ok()) {
    absl::MutexLock lock(&mutex_);
    live_bytes_ -= nbytes;
  }
  return weights;
}

absl::StatusOr<MergeTier::Pins> MergeTier::PinAll(const AdapterSelection& selection) {
  Pins pins;
  for (const WeightedAdapter& weighted : selection.adapters()) {
    absl::StatusOr<std::shared_ptr<const CompiledAdapter>> pin =
        cache_->Pin(weighted.adapter->digest);
    while (absl::IsUnavailable(pin.status())) {
      TENON_RETURN_IF_ERROR(AwaitLoad(weighted.adapter));
      pin = cache_->Pin(weighted.adapter->digest);
    }
    TENON_RETURN_IF_ERROR(pin.status());
    pins.push_back(*std::move(pin));
  }
  return pins;
}

absl::Status MergeTier::AwaitLoad(const AdapterHandle& adapter) {
  const auto load = std::make_shared<Signal>();
  {
    absl::MutexLock lock(&mutex_);
    if (stopping_) {
      return absl::CancelledError("the server stops");
    }
    awaited_ = load;
  }
  cache_->Prefetch(adapter, [load] { load->Set(); });
  load->Await();
  return absl::OkStatus();
}

absl::Status MergeTier::Reserve(const std::string& key, int64_t nbytes) {
  while (true) {
    FreeDiscarded();
    std::shared_ptr<const MergedSet> old;
    absl::MutexLock lock(&mutex_);
    if (stopping_) {
      return absl::CancelledError("the server stops");
    }
    if (live_bytes_ + nbytes <= options_.budget_bytes) {
      live_bytes_ += nbytes;
      return absl::OkStatus();
    }
    if (stats_.merged_bytes + nbytes > options_.budget_bytes) {
      const auto mine = entries_.find(key);
      const bool by_operator =
          mine != entries_.end() && mine->second.status.mode == MergeMode::kAlways;
      const auto victim = std::find_if(entries_.begin(), entries_.end(), [](const auto& other) {
        return other.second.status.state == MergeState::kMerged &&
               other.second.status.mode == MergeMode::kAuto;
      });
      if (!by_operator || victim == entries_.end()) {
        return NoRoomError(nbytes, stats_.merged_bytes, options_.budget_bytes);
      }
      const std::string victim_key = victim->first;
      old = Unmerge(victim_key);
      EraseIfIdle(victim_key);
      continue;  // `old` goes after the lock
    }
    // What is unmerged already is held by the step that runs now.
    const auto freed = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return stopping_ || !discarded_.empty();
    };
    mutex_.Await(absl::Condition(&freed));
  }
}

bool MergeTier::Cancelled(const std::string& key) const {
  absl::MutexLock lock(&mutex_);
  const auto found = entries_.find(key);
  return stopping_ || found == entries_.end() || found->second.forgotten ||
         found->second.status.mode == MergeMode::kNever;
}

void MergeTier::Finish(const std::string& key, absl::StatusOr<Weights> computed,
                       absl::Duration took) {
  const bool cancelled = Cancelled(key) || absl::IsCancelled(computed.status());
  std::shared_ptr<const MergedSet> old;
  std::shared_ptr<const MergedWeights> weights;
  if (computed.ok()) {
    weights = Share(*std::move(computed));
  }
  std::vector<Done> waiters;
  {
    absl::MutexLock lock(&mutex_);
    Entry& entry = entries_[key];
    waiters = std::exchange(entry.waiters, {});
    entry.status.state = MergeState::kUnmerged;
    if (weights != nullptr && !cancelled) {
      entry.status.state = MergeState::kMerged;
      entry.status.nbytes = weights->facts().nbytes;
      entry.status.merge_time = took;
      entry.status.merged_at = options_.clock();
      ++stats_.merges;
      ++stats_.num_merged;
      stats_.merged_bytes += entry.status.nbytes;
      old = Replace(key, weights);
    } else {
      entry.status.mode =
          entry.status.mode == MergeMode::kAlways ? MergeMode::kAuto : entry.status.mode;
      if (!cancelled) {
        ++stats_.failed_merges;
        not_before_[key] = options_.clock() + options_.retry_after;
      }
    }
    EraseIfIdle(key);
    if (stopping_) {
      return;
    }
  }
  for (Done& done : waiters) {
    done(cancelled ? absl::AbortedError("the adapter's merge mode was changed meanwhile")
                   : computed.status());
  }
}

std::shared_ptr<const MergedWeights> MergeTier::Share(Weights weights) {
  return std::shared_ptr<const MergedWeights>(weights.release(), [this](const MergedWeights* last) {
    absl::MutexLock lock(&mutex_);
    discarded_.emplace_back(last);
  });
}

void MergeTier::FreeDiscarded() {
  std::vector<Weights> discarded;
  {
    absl::MutexLock lock(&mutex_);
    discarded = std::exchange(discarded_, {});
  }
  if (discarded.empty()) {
    return;
  }
  int64_t nbytes = 0;
  for (const Weights& weights : discarded) {
    nbytes += weights->facts().nbytes;
  }
  discarded.clear();
  malloc_trim(0);  // glibc keeps what lies between live allocations unless told
  absl::MutexLock lock(&mutex_);
  live_bytes_ -= nbytes;
}

void MergeTier::AddJob(const std::shared_ptr<const AdapterSelection>& selection) {
  Entry& entry = entries_[selection->key()];
  entry.status.state = MergeState::kMerging;
  entry.digests = DigestsOf(*selection);
  jobs_.push_back(selection);
}

std::shared_ptr<const MergedSet> MergeTier::Replace(const std::string& key,
                                                    std::shared_ptr<const MergedWeights> weights) {
  auto next = std::make_shared<MergedSet>(*set_);
  next->erase(key);
  if (weights != nullptr) {
    next->emplace(key, std::move(weights));
  }
  return std::exchange(set_, std::shared_ptr<const MergedSet>(std::move(next)));
}

std::shared_ptr<const MergedSet> MergeTier::Unmerge(const std::string& key) {
  MergeStatus& status = entries_.at(key).status;
  ++stats_.unmerges;
  --stats_.num_merged;
  stats_.merged_bytes -= status.nbytes;
  status.state = MergeState::kUnmerged;
  status.nbytes = 0;
  return Replace(key, nullptr);
}

void MergeTier::EraseIfIdle(const std::string& key) {
  const auto found = entries_.find(key);
  if (found != entries_.end() && found->second.status.state == MergeState::kUnmerged &&
      (found->second.status.mode == MergeMode::kAuto || found->second.forgotten)) {
    entries_.erase(found);
  }
}

void MergeTier::SetMode(const std::shared_ptr<const AdapterSelection>& selection, MergeMode mode,
                        Done done) {
  std::shared_ptr<const MergedSet> old;
  {
    absl::MutexLock lock(&mutex_);
    Entry& entry = entries_[selection->key()];
    entry.status.mode = mode;
    entry.digests = DigestsOf(*selection);
    if (mode == MergeMode::kAlways && entry.status.state != MergeState::kMerged) {
      entry.waiters.push_back(std::move(done));
      if (entry.status.state == MergeState::kUnmerged) {
        AddJob(selection);
      }
      return;
    }
    if (mode == MergeMode::kNever && entry.status.state == MergeState::kMerged) {
      old = Unmerge(selection->key());
    }
    EraseIfIdle(selection->key());
  }
  old.reset();
  done(absl::OkStatus());
}

void MergeTier::Forget(const std::string& digest) {
  std::vector<std::shared_ptr<const MergedSet>> old;
  absl::MutexLock lock(&mutex_);
  for (auto next = entries_.begin(); next != entries_.end();) {
    const auto current = next++;
    const std::vector<std::string>& digests = current->second.digests;
    if (std::find(digests.begin(), digests.end(), digest) == digests.end()) {
      continue;
    }
    current->second.forgotten = true;
    if (current->second.status.state == MergeState::kMerged) {
      old.push_back(Unmerge(current->first));
    }
    EraseIfIdle(current->first);
  }
}

MergeStatus MergeTier::status(const std::string& key) const {
  absl::MutexLock lock(&mutex_);
  const auto found = entries_.find(key);
  return found == entries_.end() ? MergeStatus() : found->second.status;
}

MergeTierStats MergeTier::stats() const {
  absl::MutexLock lock(&mutex_);
  MergeTierStats stats = stats_;
  stats.budget_bytes = options_.budget_bytes;
  return stats;
}

std::shared_ptr<const MergedSet> MergeTier::merged() const {
  absl::MutexLock lock(&mutex_);
  return set_;
}

void MergeTier::Observe(const Batch& batch, absl::Time now) {
  if (options_.budget_bytes == 0) {
    return;
  }
  for (const BatchSegment& segment : batch.segments) {
    policy_.Count(segment.selection->key(), segment.token_end - segment.token_begin, now);
  }
  if (now >= next_advice_) {
    next_advice_ = now + options_.policy.window / 10;
    TakeAdvice(now);
  }
  if (!wanted_.has_value()) {
    return;
  }
  for (const BatchSegment& segment : batch.segments) {
    if (segment.selection->key() == *wanted_) {
      wanted_.reset();
      absl::MutexLock lock(&mutex_);
      const auto found = entries_.find(segment.selection->key());
      if (found == entries_.end() || (found->second.status.state == MergeState::kUnmerged &&
                                      found->second.status.mode == MergeMode::kAuto)) {
        AddJob(segment.selection);
      }
      return;
    }
  }
}

void MergeTier::TakeAdvice(absl::Time now) {
  std::vector<std::shared_ptr<const MergedSet>> old;
  absl::MutexLock lock(&mutex_);
  std::vector<std::string> merged;
  for (const auto& [key, entry] : entries_) {
    if (entry.status.state != MergeState::kUnmerged || entry.status.mode != MergeMode::kAuto) {
      merged.push_back(key);  // or not to be merged by advice
    }
  }
  const MergePolicy::Advice advice = policy_.Advise(merged, now);
  for (const std::string& key : advice.unmerge) {
    const MergeStatus& status = entries_.at(key).status;
    if (status.mode == MergeMode::kAuto && status.state == MergeState::kMerged) {
      old.push_back(Unmerge(key));
      EraseIfIdle(key);
    }
  }
  wanted_ = advice.merge;
  if (wanted_.has_value()) {
    const auto refused = not_before_.find(*wanted_);
    if (refused != not_before_.end() && now < refused->second) {
      wanted_.reset();
    }
  }
}

}  // namespace tenon
