// QuotaBook: what each tenant uses now, against what it may.
#ifndef TENON_SERVER_TENANT_QUOTA_BOOK_H_
#define TENON_SERVER_TENANT_QUOTA_BOOK_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "server/tenant/tenant_records.h"
#include "server/tenant/token_bucket.h"

namespace tenon {

class QuotaBook;

/// One generation request's claim on its tenant's quotas, until it goes. Movable;
/// thread-compatible.
class RequestTicket {
 public:
  RequestTicket() = default;
  RequestTicket(RequestTicket&& other) noexcept;
  RequestTicket& operator=(RequestTicket&& other) noexcept;
  ~RequestTicket() { Release(); }

  /// It has its first token: it is no longer queued. Later calls have no effect.
  void Start();
  /// Charges prompt or generated tokens.
  void Charge(int64_t num_tokens);

 private:
  friend class QuotaBook;
  RequestTicket(QuotaBook* book, std::string tenant, absl::Time begin)
      : book_(book), tenant_(std::move(tenant)), begin_(begin), queued_(true) {}
  void Release();

  QuotaBook* book_ = nullptr;  // null: holds nothing
  std::string tenant_;
  absl::Time begin_;
  bool queued_ = false;
};

/// Limits are read at every use: a change holds for the next call. All errors are
/// RESOURCE_EXHAUSTED with the limit's name as subject and, where waiting helps, the time after
/// which the same call would be let in if nobody else came.
///
/// Thread-safe. Outlives its tickets.
class QuotaBook {
 public:
  using Limits = std::function<TenantLimits(absl::string_view tenant)>;
  QuotaBook(Limits limits, std::function<absl::Time()> clock)
      : limits_(std::move(limits)), clock_(std::move(clock)) {}

  /// Counts a generation request in. Errors: REQUEST_RATE, TOKEN_RATE, CONCURRENT_REQUESTS,
  /// QUEUED_REQUESTS; a request that is refused costs nothing.
  absl::StatusOr<RequestTicket> AdmitRequest(absl::string_view tenant) ABSL_LOCKS_EXCLUDED(mutex_);

  /// What a request of `num_samples` may generate for each: `max_tokens`, or for 0 (the default)
  /// the largest value under the limit when the default could exceed it, else 0. Error: MAX_TOKENS.
  absl::StatusOr<int32_t> CapTokens(absl::string_view tenant, int32_t max_tokens,
                                    int32_t num_samples, int32_t default_tokens) const;

  /// Whether a tenant that has so many live adapter versions and bytes may have one of `new_bytes`
  /// more. Errors: ADAPTERS, ADAPTER_BYTES.
  absl::Status CheckAdapters(absl::string_view tenant, int64_t num_adapters, int64_t num_bytes,
                             int64_t new_bytes) const;

  TenantLimits LimitsOf(absl::string_view tenant) const { return limits_(tenant); }

  /// The levels of rates that have changed since the last call, to be kept over a restart.
  std::vector<BucketRecord> TakeChangedBuckets() ABSL_LOCKS_EXCLUDED(mutex_);
  /// Goes on from levels of an earlier process. Time that passed meanwhile fills them.
  void Restore(const std::vector<BucketRecord>& buckets) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  friend class RequestTicket;
  struct Account {
    TokenBucket requests, tokens;
    bool changed = false;  // either of them, since TakeChangedBuckets
    int64_t in_flight = 0, queued = 0;
    absl::Duration mean_duration = absl::Seconds(1);  // of requests, the last ones weighing most
  };

  absl::Status CheckAccount(absl::string_view tenant, const TenantLimits& limits, Account& account,
                            absl::Time now) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Start(const std::string& tenant) ABSL_LOCKS_EXCLUDED(mutex_);
  void Charge(const std::string& tenant, int64_t num_tokens) ABSL_LOCKS_EXCLUDED(mutex_);
  void Release(const std::string& tenant, bool queued, absl::Time begin)
      ABSL_LOCKS_EXCLUDED(mutex_);

  const Limits limits_;
  const std::function<absl::Time()> clock_;
  absl::Mutex mutex_;
  // One per tenant that ever called: bounded by the tenants there are.
  absl::flat_hash_map<std::string, Account> accounts_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace tenon

#endif  // TENON_SERVER_TENANT_QUOTA_BOOK_H_
