#include "server/rpc/tenant_conversion.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"

namespace tenon {
namespace {

// Both from google/protobuf/timestamp.proto and duration.proto.
constexpr int64_t kMinSeconds = -62'135'596'800;
constexpr int64_t kMaxSeconds = 253'402'300'799;
constexpr int64_t kMaxDurationSeconds = 315'576'000'000;
constexpr int32_t kNanosPerSecond = 1'000'000'000;

// Leaves `out` unset for times that are infinite.
template <typename MakeMutable>
void SetTime(absl::Time time, MakeMutable make) {
  if (time == absl::InfiniteFuture() || time == absl::InfinitePast()) {
    return;
  }
  google::protobuf::Timestamp* const out = make();
  const int64_t seconds = absl::ToUnixSeconds(time);
  out->set_seconds(seconds);
  out->set_nanos(
      static_cast<int32_t>(absl::ToInt64Nanoseconds(time - absl::FromUnixSeconds(seconds))));
}

}  // namespace

v1::Tenant ToProto(const TenantRecord& record) {
  v1::Tenant tenant;
  tenant.set_name(record.name);
  tenant.set_state(record.state == TenantState::kActive ? v1::TENANT_STATE_ACTIVE
                                                        : v1::TENANT_STATE_SUSPENDED);
  v1::TenantLimits& limits = *tenant.mutable_limits();
  limits.set_requests_per_second(record.limits.requests_per_second);
  limits.set_tokens_per_minute(record.limits.tokens_per_minute);
  limits.set_concurrent_requests(record.limits.concurrent_requests);
  limits.set_queued_requests(record.limits.queued_requests);
  limits.set_max_tokens(record.limits.max_tokens);
  limits.set_adapters(record.limits.adapters);
  limits.set_adapter_bytes(record.limits.adapter_bytes);
  limits.set_weight(record.limits.weight);
  limits.set_kv_percent(record.limits.kv_percent);
  limits.set_pinned_bytes(record.limits.pinned_bytes);
  SetTime(record.created, [&] { return tenant.mutable_create_time(); });
  return tenant;
}

v1::ApiKey ToProto(const KeyRecord& record) {
  v1::ApiKey key;
  key.set_id(record.id);
  key.set_tenant(record.tenant);
  key.set_role(std::string(RoleName(record.role)));
  SetTime(record.created, [&] { return key.mutable_create_time(); });
  SetTime(record.expires, [&] { return key.mutable_expire_time(); });
  SetTime(record.revoked, [&] { return key.mutable_revoke_time(); });
  SetTime(record.last_used, [&] { return key.mutable_last_use_time(); });
  key.set_note(record.note);
  return key;
}

v1::AdapterUsage ToProto(const UsageRecord& record) {
  v1::AdapterUsage usage;
  usage.set_adapter(record.adapter);
  usage.set_requests(record.totals.requests);
  usage.set_prompt_tokens(record.totals.prompt_tokens);
  usage.set_cached_prompt_tokens(record.totals.cached_prompt_tokens);
  usage.set_generated_tokens(record.totals.generated_tokens);
  usage.set_device_seconds(record.totals.device_seconds);
  usage.set_adapter_byte_seconds(record.totals.adapter_byte_seconds);
  usage.set_loads(record.totals.loads);
  return usage;
}

v1::AuditEntry ToProto(const AuditEntry& entry) {
  v1::AuditEntry out;
  out.set_sequence(entry.sequence);
  SetTime(entry.time, [&] { return out.mutable_time(); });
  out.set_actor(entry.actor);
  out.set_peer(entry.peer);
  out.set_action(entry.action);
  out.set_tenant(entry.tenant);
  out.set_object(entry.object);
  out.set_outcome(entry.outcome);
  return out;
}

TenantLimits FromProto(const v1::TenantLimits& limits) {
  return {limits.requests_per_second(), limits.tokens_per_minute(),
          limits.concurrent_requests(), limits.queued_requests(),
          limits.max_tokens(),          limits.adapters(),
          limits.adapter_bytes(),       limits.weight(),
          limits.kv_percent(),          limits.pinned_bytes()};
}

absl::StatusOr<TenantState> FromProto(v1::TenantState state) {
  switch (state) {
    case v1::TENANT_STATE_ACTIVE:
      return TenantState::kActive;
    case v1::TENANT_STATE_SUSPENDED:
      return TenantState::kSuspended;
    default:
      return InvalidFieldError(
          "state", absl::StrCat(static_cast<int>(state), " is neither ACTIVE nor SUSPENDED"));
  }
}

absl::StatusOr<absl::Time> FromProto(absl::string_view field,
                                     const google::protobuf::Timestamp& time) {
  if (time.seconds() < kMinSeconds || time.seconds() > kMaxSeconds || time.nanos() < 0 ||
      time.nanos() >= kNanosPerSecond) {
    return InvalidFieldError(field, "not a time of the years 1 to 9999");
  }
  return absl::FromUnixSeconds(time.seconds()) + absl::Nanoseconds(time.nanos());
}

absl::StatusOr<absl::Duration> FromProto(absl::string_view field,
                                         const google::protobuf::Duration& duration) {
  if (std::abs(duration.seconds()) > kMaxDurationSeconds ||
      std::abs(duration.nanos()) >= kNanosPerSecond) {
    return InvalidFieldError(field, "not a duration of at most 10000 years");
  }
  return absl::Seconds(duration.seconds()) + absl::Nanoseconds(duration.nanos());
}

}  // namespace tenon
