// TenantClient: the calls of tenants.proto, for operators and administrators.
#ifndef TENON_CLIENT_CPP_TENANT_CLIENT_H_
#define TENON_CLIENT_CPP_TENANT_CLIENT_H_

#include <grpcpp/channel.h>

#include <memory>

#include "absl/status/statusor.h"
#include "client/cpp/client_options.h"
#include "tenon/v1/tenants.grpc.pb.h"

namespace tenon {

/// Calls the admin listener; errors as Client has them. Thread-safe. Made by Client.
class TenantClient {
 public:
  TenantClient(const std::shared_ptr<grpc::Channel>& channel, ClientOptions options);

  absl::StatusOr<v1::CreateTenantResponse> CreateTenant(
      const v1::CreateTenantRequest& request) const;
  absl::StatusOr<v1::ListTenantsResponse> ListTenants(const v1::ListTenantsRequest& request) const;
  absl::StatusOr<v1::GetTenantResponse> GetTenant(const v1::GetTenantRequest& request) const;
  absl::StatusOr<v1::SetTenantStateResponse> SetTenantState(
      const v1::SetTenantStateRequest& request) const;
  absl::StatusOr<v1::SetTenantLimitsResponse> SetTenantLimits(
      const v1::SetTenantLimitsRequest& request) const;
  absl::StatusOr<v1::DeleteTenantResponse> DeleteTenant(
      const v1::DeleteTenantRequest& request) const;
  absl::StatusOr<v1::CreateKeyResponse> CreateKey(const v1::CreateKeyRequest& request) const;
  absl::StatusOr<v1::ListKeysResponse> ListKeys(const v1::ListKeysRequest& request) const;
  absl::StatusOr<v1::RotateKeyResponse> RotateKey(const v1::RotateKeyRequest& request) const;
  absl::StatusOr<v1::RevokeKeyResponse> RevokeKey(const v1::RevokeKeyRequest& request) const;
  absl::StatusOr<v1::GetUsageResponse> GetUsage(const v1::GetUsageRequest& request) const;
  absl::StatusOr<v1::ListAuditEntriesResponse> ListAuditEntries(
      const v1::ListAuditEntriesRequest& request) const;

 private:
  ClientOptions options_;
  std::shared_ptr<v1::TenantService::Stub> stub_;
};

}  // namespace tenon

#endif  // TENON_CLIENT_CPP_TENANT_CLIENT_H_
