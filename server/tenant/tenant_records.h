// What is kept of tenants: plain values, as the store writes and the API shows them.
#ifndef TENON_SERVER_TENANT_TENANT_RECORDS_H_
#define TENON_SERVER_TENANT_TENANT_RECORDS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "server/tenant/identity.h"

namespace tenon {

/// What a tenant may use. 0: no limit.
struct TenantLimits {
  int64_t requests_per_second = 0;
  int64_t tokens_per_minute = 0;    ///< prompt and generated tokens together
  int64_t concurrent_requests = 0;  ///< generation requests in flight
  int64_t queued_requests = 0;      ///< of these, without their first token yet
  int64_t max_tokens = 0;           ///< to generate, of one request
  int64_t adapters = 0;             ///< live versions
  int64_t adapter_bytes = 0;        ///< of the files of live versions
  int64_t weight = 0;               ///< part of the engine, relative to others'; 0 stands for 1
  int64_t kv_percent = 0;           ///< of the KV blocks, that its sequences may hold
  int64_t pinned_bytes = 0;         ///< of adapters that it keeps resident

  friend bool operator==(const TenantLimits&, const TenantLimits&) = default;
};

/// A limit's name in the API, its field, and the largest value that it may have.
struct LimitField {
  absl::string_view name;
  int64_t TenantLimits::* field;
  int64_t max;
};

/// 2^53, so that JSON numbers carry it.
inline constexpr int64_t kMaxLimit = int64_t{1} << 53;

inline constexpr LimitField kLimitFields[] = {
    {"requests_per_second", &TenantLimits::requests_per_second, kMaxLimit},
    {"tokens_per_minute", &TenantLimits::tokens_per_minute, kMaxLimit},
    {"concurrent_requests", &TenantLimits::concurrent_requests, kMaxLimit},
    {"queued_requests", &TenantLimits::queued_requests, kMaxLimit},
    {"max_tokens", &TenantLimits::max_tokens, kMaxLimit},
    {"adapters", &TenantLimits::adapters, kMaxLimit},
    {"adapter_bytes", &TenantLimits::adapter_bytes, kMaxLimit},
    {"weight", &TenantLimits::weight, 1000},
    {"kv_percent", &TenantLimits::kv_percent, 100},
    {"pinned_bytes", &TenantLimits::pinned_bytes, kMaxLimit},
};

enum class TenantState { kActive, kSuspended };

struct TenantRecord {
  std::string name;  ///< as ValidateName allows
  TenantState state = TenantState::kActive;
  TenantLimits limits;
  absl::Time created;
};

/// An API key without its secret.
struct KeyRecord {
  std::string id;      ///< 16 hex digits
  std::string tenant;  ///< empty for an operator's
  Role role = Role::kInference;
  std::string digest;  ///< ApiKeyHasher::Digest of the whole key, lower-case hex
  absl::Time created;
  absl::Time expires = absl::InfiniteFuture();  ///< valid before
  absl::Time revoked = absl::InfiniteFuture();  ///< infinite: not revoked
  absl::Time last_used = absl::InfinitePast();  ///< infinite: never; to within a flush interval
  std::string note;                             ///< what its owner wrote about it
};

/// Which other tenants may use an adapter, all its versions. An adapter without one is private.
struct ShareRecord {
  std::string tenant;   ///< the owner
  std::string adapter;  ///< without a version
  bool everybody = false;
  /// Sorted. Names that no tenant has yet are kept: to refuse them would tell which exist.
  std::vector<std::string> readers;

  friend bool operator==(const ShareRecord&, const ShareRecord&) = default;
};

/// Whether a version is to be merged, as an operator said.
enum class MergeWish { kAuto, kAlways, kNever };

/// What was said about the place of one version's tensors, until it is taken back or the version is
/// deleted. One that says nothing is none.
struct PlacementRecord {
  std::string tenant;   ///< the owner
  std::string adapter;  ///< without a version
  int64_t version = 0;
  bool pinned = false;
  MergeWish merge = MergeWish::kAuto;

  bool says_nothing() const { return !pinned && merge == MergeWish::kAuto; }
  friend bool operator==(const PlacementRecord&, const PlacementRecord&) = default;
};

/// One line of the audit log.
struct AuditEntry {
  int64_t sequence = 0;  ///< grows without end; given by the store
  absl::Time time;
  std::string actor;    ///< Identity::credential of who asked
  std::string peer;     ///< from where, as gRPC writes addresses
  std::string action;   ///< the method: "CreateKey"
  std::string tenant;   ///< which tenant it was about; may be empty
  std::string object;   ///< key id, adapter or tenant
  std::string outcome;  ///< a status code's name in lower case
};

/// Sums since the beginning, of one tenant and adapter.
struct UsageTotals {
  int64_t requests = 0;
  int64_t prompt_tokens = 0;
  int64_t cached_prompt_tokens = 0;
  int64_t generated_tokens = 0;
  double device_seconds = 0;        ///< each step's time, shared among its rows by cost
  double adapter_byte_seconds = 0;  ///< bytes that the adapter took in memory, by time
  int64_t loads = 0;                ///< of the adapter into memory

  UsageTotals& operator+=(const UsageTotals& more) {
    requests += more.requests;
    prompt_tokens += more.prompt_tokens;
    cached_prompt_tokens += more.cached_prompt_tokens;
    generated_tokens += more.generated_tokens;
    device_seconds += more.device_seconds;
    adapter_byte_seconds += more.adapter_byte_seconds;
    loads += more.loads;
    return *this;
  }
  friend bool operator==(const UsageTotals&, const UsageTotals&) = default;
};

struct UsageRecord {
  std::string tenant;
  std::string adapter;  ///< without a version; empty: the base model
  UsageTotals totals;
};

/// What a tenant has left of its rates, or owes when below zero.
struct BucketRecord {
  std::string tenant;
  double requests = 0, tokens = 0;
  absl::Time requests_time, tokens_time;  ///< of these levels; infinitely past: never used
};

}  // namespace tenon

#endif  // TENON_SERVER_TENANT_TENANT_RECORDS_H_
