#include "server/tenant/quota_book.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"

namespace tenon {
namespace {

// Of the mean duration, so that about the last ten requests count.
constexpr double kNewestWeight = 0.1;
// A retry time of less would round to none in a client's clock.
constexpr absl::Duration kMinRetry = absl::Milliseconds(1);

absl::Status Exceeded(absl::string_view reason, absl::string_view tenant, absl::string_view limit,
                      int64_t value, absl::Duration retry_after = absl::ZeroDuration()) {
  if (retry_after > absl::ZeroDuration()) {
    retry_after = std::max(absl::Ceil(retry_after, kMinRetry), kMinRetry);
  }
  return QuotaExceededError(
      reason, absl::StrCat("tenant:", tenant, "/", limit),
      absl::StrCat("tenant ", tenant, " is at its limit of ", value, " ", limit), retry_after);
}

double Rate(int64_t tokens_per_minute) { return static_cast<double>(tokens_per_minute) / 60.0; }

}  // namespace

RequestTicket::RequestTicket(RequestTicket&& other) noexcept
    : book_(std::exchange(other.book_, nullptr)),
      tenant_(std::move(other.tenant_)),
      begin_(other.begin_),
      queued_(other.queued_) {}

RequestTicket& RequestTicket::operator=(RequestTicket&& other) noexcept {
  if (this != &other) {
    Release();
    book_ = std::exchange(other.book_, nullptr);
    tenant_ = std::move(other.tenant_);
    begin_ = other.begin_;
    queued_ = other.queued_;
  }
  return *this;
}

void RequestTicket::Start() {
  if (book_ != nullptr && std::exchange(queued_, false)) {
    book_->Start(tenant_);
  }
}

void RequestTicket::Charge(int64_t num_tokens) {
  if (book_ != nullptr && num_tokens > 0) {
    book_->Charge(tenant_, num_tokens);
  }
}

void RequestTicket::Release() {
  if (QuotaBook* const book = std::exchange(book_, nullptr)) {
    book->Release(tenant_, queued_, begin_);
  }
}

absl::Status QuotaBook::CheckAccount(absl::string_view tenant, const TenantLimits& limits,
                                     Account& account, absl::Time now) const {
  const auto next_end = [&] {
    return account.mean_duration / static_cast<double>(std::max<int64_t>(account.in_flight, 1));
  };
  if (limits.concurrent_requests > 0 && account.in_flight >= limits.concurrent_requests) {
    return Exceeded("CONCURRENT_REQUESTS", tenant, "concurrent_requests",
                    limits.concurrent_requests, next_end());
  }
  if (limits.queued_requests > 0 && account.queued >= limits.queued_requests) {
    return Exceeded("QUEUED_REQUESTS", tenant, "queued_requests", limits.queued_requests,
                    next_end());
  }
  if (limits.tokens_per_minute > 0) {
    const absl::Duration wait = account.tokens.TimeUntil(
        1, Rate(limits.tokens_per_minute), static_cast<double>(limits.tokens_per_minute), now);
    if (wait > absl::ZeroDuration()) {
      return Exceeded("TOKEN_RATE", tenant, "tokens_per_minute", limits.tokens_per_minute, wait);
    }
  }
  if (limits.requests_per_second > 0) {
    const double rate = static_cast<double>(limits.requests_per_second);
    const absl::Duration wait = account.requests.TimeUntil(1, rate, rate, now);
    if (wait > absl::ZeroDuration()) {
      return Exceeded("REQUEST_RATE", tenant, "requests_per_second", limits.requests_per_second,
                      wait);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<RequestTicket> QuotaBook::AdmitRequest(absl::string_view tenant) {
  const TenantLimits limits = limits_(tenant);
  const absl::Time now = clock_();
  absl::MutexLock lock(&mutex_);
  Account& account = accounts_[std::string(tenant)];
  TENON_RETURN_IF_ERROR(CheckAccount(tenant, limits, account, now));
  if (limits.requests_per_second > 0) {
    const double rate = static_cast<double>(limits.requests_per_second);
    account.requests.Take(1, rate, rate, now);
    account.changed = true;
  }
  ++account.in_flight;
  ++account.queued;
  return RequestTicket(this, std::string(tenant), now);
}

absl::StatusOr<int32_t> QuotaBook::CapTokens(absl::string_view tenant, int32_t max_tokens,
                                             int32_t num_samples, int32_t default_tokens) const {
  const int64_t limit = limits_(tenant).max_tokens;
  if (limit == 0) {
    return max_tokens;
  }
  const int64_t samples = std::max(num_samples, 1);
  if (max_tokens * samples > limit || samples > limit) {
    return Exceeded("MAX_TOKENS", tenant, "max_tokens", limit);
  }
  return max_tokens == 0 && default_tokens * samples > limit ? static_cast<int32_t>(limit / samples)
                                                             : max_tokens;
}

absl::Status QuotaBook::CheckAdapters(absl::string_view tenant, int64_t num_adapters,
                                      int64_t num_bytes, int64_t new_bytes) const {
  const TenantLimits limits = limits_(tenant);
  if (limits.adapters > 0 && num_adapters >= limits.adapters) {
    return Exceeded("ADAPTERS", tenant, "adapters", limits.adapters);
  }
  if (limits.adapter_bytes > 0 && num_bytes + new_bytes > limits.adapter_bytes) {
    return Exceeded("ADAPTER_BYTES", tenant, "adapter_bytes", limits.adapter_bytes);
  }
  return absl::OkStatus();
}

void QuotaBook::Start(const std::string& tenant) {
  absl::MutexLock lock(&mutex_);
  --accounts_[tenant].queued;
}

void QuotaBook::Charge(const std::string& tenant, int64_t num_tokens) {
  const TenantLimits limits = limits_(tenant);
  if (limits.tokens_per_minute == 0) {
    return;
  }
  const absl::Time now = clock_();
  absl::MutexLock lock(&mutex_);
  Account& account = accounts_[tenant];
  account.tokens.Take(static_cast<double>(num_tokens), Rate(limits.tokens_per_minute),
                      static_cast<double>(limits.tokens_per_minute), now);
  account.changed = true;
}

std::vector<BucketRecord> QuotaBook::TakeChangedBuckets() {
  std::vector<BucketRecord> changed;
  absl::MutexLock lock(&mutex_);
  for (auto& [tenant, account] : accounts_) {
    if (std::exchange(account.changed, false)) {
      changed.push_back({tenant, account.requests.level(), account.tokens.level(),
                         account.requests.time(), account.tokens.time()});
    }
  }
  return changed;
}

void QuotaBook::Restore(const std::vector<BucketRecord>& buckets) {
  absl::MutexLock lock(&mutex_);
  for (const BucketRecord& bucket : buckets) {
    Account& account = accounts_[bucket.tenant];
    account.requests.Restore(bucket.requests, bucket.requests_time);
    account.tokens.Restore(bucket.tokens, bucket.tokens_time);
  }
}

void QuotaBook::Release(const std::string& tenant, bool queued, absl::Time begin) {
  const absl::Duration took = clock_() - begin;
  absl::MutexLock lock(&mutex_);
  Account& account = accounts_[tenant];
  --account.in_flight;
  account.queued -= queued ? 1 : 0;
  account.mean_duration += (took - account.mean_duration) * kNewestWeight;
}

}  // namespace tenon
