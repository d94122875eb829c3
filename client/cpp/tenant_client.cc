#include "client/cpp/tenant_client.h"

#include <utility>

#include "client/cpp/call.h"

namespace tenon {

using Stub = v1::TenantService::Stub;

TenantClient::TenantClient(const std::shared_ptr<grpc::Channel>& channel, ClientOptions options)
    : options_(std::move(options)), stub_(v1::TenantService::NewStub(channel)) {}

absl::StatusOr<v1::CreateTenantResponse> TenantClient::CreateTenant(
    const v1::CreateTenantRequest& request) const {
  return Call(options_, *stub_, &Stub::CreateTenant, request);
}

absl::StatusOr<v1::ListTenantsResponse> TenantClient::ListTenants(
    const v1::ListTenantsRequest& request) const {
  return Call(options_, *stub_, &Stub::ListTenants, request);
}

absl::StatusOr<v1::GetTenantResponse> TenantClient::GetTenant(
    const v1::GetTenantRequest& request) const {
  return Call(options_, *stub_, &Stub::GetTenant, request);
}

absl::StatusOr<v1::SetTenantStateResponse> TenantClient::SetTenantState(
    const v1::SetTenantStateRequest& request) const {
  return Call(options_, *stub_, &Stub::SetTenantState, request);
}

absl::StatusOr<v1::SetTenantLimitsResponse> TenantClient::SetTenantLimits(
    const v1::SetTenantLimitsRequest& request) const {
  return Call(options_, *stub_, &Stub::SetTenantLimits, request);
}

absl::StatusOr<v1::DeleteTenantResponse> TenantClient::DeleteTenant(
    const v1::DeleteTenantRequest& request) const {
  return Call(options_, *stub_, &Stub::DeleteTenant, request);
}

absl::StatusOr<v1::CreateKeyResponse> TenantClient::CreateKey(
    const v1::CreateKeyRequest& request) const {
  return Call(options_, *stub_, &Stub::CreateKey, request);
}

absl::StatusOr<v1::ListKeysResponse> TenantClient::ListKeys(
    const v1::ListKeysRequest& request) const {
  return Call(options_, *stub_, &Stub::ListKeys, request);
}

absl::StatusOr<v1::RotateKeyResponse> TenantClient::RotateKey(
    const v1::RotateKeyRequest& request) const {
  return Call(options_, *stub_, &Stub::RotateKey, request);
}

absl::StatusOr<v1::RevokeKeyResponse> TenantClient::RevokeKey(
    const v1::RevokeKeyRequest& request) const {
  return Call(options_, *stub_, &Stub::RevokeKey, request);
}

absl::StatusOr<v1::GetUsageResponse> TenantClient::GetUsage(
    const v1::GetUsageRequest& request) const {
  return Call(options_, *stub_, &Stub::GetUsage, request);
}

absl::StatusOr<v1::ListAuditEntriesResponse> TenantClient::ListAuditEntries(
    const v1::ListAuditEntriesRequest& request) const {
  return Call(options_, *stub_, &Stub::ListAuditEntries, request);
}

}  // namespace tenon
