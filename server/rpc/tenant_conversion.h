// Records of server/tenant <-> messages of tenants.proto.
#ifndef TENON_SERVER_RPC_TENANT_CONVERSION_H_
#define TENON_SERVER_RPC_TENANT_CONVERSION_H_

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "server/tenant/tenant_records.h"
#include "tenon/v1/tenants.pb.h"

namespace tenon {

v1::Tenant ToProto(const TenantRecord& record);
v1::ApiKey ToProto(const KeyRecord& record);
v1::AdapterUsage ToProto(const UsageRecord& record);
v1::AuditEntry ToProto(const AuditEntry& entry);

TenantLimits FromProto(const v1::TenantLimits& limits);

/// INVALID_ARGUMENT for UNSPECIFIED and for values that are none.
absl::StatusOr<TenantState> FromProto(v1::TenantState state);

/// INVALID_ARGUMENT, naming `field`, for one out of range (years 1 to 9999).
absl::StatusOr<absl::Time> FromProto(absl::string_view field,
                                     const google::protobuf::Timestamp& time);

/// INVALID_ARGUMENT, naming `field`, for one out of range.
absl::StatusOr<absl::Duration> FromProto(absl::string_view field,
                                         const google::protobuf::Duration& duration);

}  // namespace tenon

#endif  // TENON_SERVER_RPC_TENANT_CONVERSION_H_
