#include "server/engine/engine_inbox.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"

namespace tenon {
namespace {

// Bounds of the retry time: below, clients only hammer; above, the estimate is worth nothing.
constexpr absl::Duration kMinRetry = absl::Milliseconds(100);
constexpr absl::Duration kMaxRetry = absl::Seconds(60);
// How long a restart takes to be noticed by a load balancer.
constexpr absl::Duration kRetryElsewhere = absl::Seconds(1);

absl::Status DrainingError() {
  return RetryLaterError("DRAINING", "the server is draining and takes no new requests",
                         kRetryElsewhere);
}

}  // namespace

bool EngineInbox::HasPlaces(absl::string_view tenant, int64_t num_queued,
                            int64_t num_sequences) const {
  if (num_queued + num_sequences <= max_queued_sequences_) {
    return true;
  }
  const auto mine = in_flight_.find(tenant);
  const int64_t num_mine = mine == in_flight_.end() ? 0 : mine->second;
  const int64_t num_tenants = static_cast<int64_t>(in_flight_.size()) + (num_mine == 0 ? 1 : 0);
  return fair_ && num_mine + num_sequences <= max_queued_sequences_ / num_tenants &&
         num_queued + num_sequences <= 2 * max_queued_sequences_;
}

absl::Status EngineInbox::Reserve(absl::string_view tenant, int64_t num_sequences) {
  absl::MutexLock lock(&mutex_);
  if (closed_) {
    return DrainingError();
  }
  const int64_t num_queued = std::max<int64_t>(num_in_flight_ - stats_.num_running, 0);
  if (!HasPlaces(tenant, num_queued, num_sequences)) {
    return QuotaExceededError(
        "QUEUE_FULL", "queue",
        absl::StrCat(num_sequences, " sequences do not fit the queue: ", num_queued,
                     " are waiting, the limit is ", max_queued_sequences_),
        std::clamp(num_queued * time_per_sequence_, kMinRetry, kMaxRetry));
  }
  num_in_flight_ += num_sequences;
  in_flight_[tenant] += num_sequences;
  return absl::OkStatus();
}

void EngineInbox::CountEnd(absl::string_view tenant, int64_t count) {
  num_in_flight_ -= count;
  const auto mine = in_flight_.find(tenant);
  if (mine != in_flight_.end() && (mine->second -= count) == 0) {
    in_flight_.erase(mine);
  }
}

absl::Status EngineInbox::Put(GenerationRequest request) {
  absl::MutexLock lock(&mutex_);
  if (stop_) {
    CountEnd(request.tenant, request.num_samples);
    return DrainingError();
  }
  requests_.push_back(std::move(request));
  woken_ = true;
  return absl::OkStatus();
}

void EngineInbox::Wake() {
  absl::MutexLock lock(&mutex_);
  woken_ = true;
}

void EngineInbox::Close() {
  absl::MutexLock lock(&mutex_);
  closed_ = true;
}

void EngineInbox::Stop() {
  absl::MutexLock lock(&mutex_);
  closed_ = true;
  stop_ = true;
  woken_ = true;
}

bool EngineInbox::AwaitIdle(absl::Duration timeout) {
  absl::MutexLock lock(&mutex_);
  return mutex_.AwaitWithTimeout(absl::Condition(this, &EngineInbox::idle), timeout);
}

EngineStats EngineInbox::stats() const {
  absl::MutexLock lock(&mutex_);
  return stats_;
}

EngineInbox::Mail EngineInbox::Take() {
  absl::MutexLock lock(&mutex_);
  woken_ = false;
  return Mail{.requests = std::exchange(requests_, {}), .stop = stop_};
}

void EngineInbox::Wait(absl::Duration timeout) {
  absl::MutexLock lock(&mutex_);
  mutex_.AwaitWithTimeout(absl::Condition(this, &EngineInbox::has_mail), timeout);
}

void EngineInbox::Report(const EngineStats& stats, const SequenceCounts& ended,
                         absl::Duration time_per_sequence) {
  absl::MutexLock lock(&mutex_);
  stats_ = stats;
  for (const auto& [tenant, count] : ended) {
    CountEnd(tenant, count);
  }
  time_per_sequence_ = time_per_sequence;
}

}  // namespace tenon
