// TenantService: tenants.proto over the directory.
#ifndef TENON_SERVER_RPC_TENANT_SERVICE_H_
#define TENON_SERVER_RPC_TENANT_SERVICE_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "server/rpc/call_record.h"
#include "server/rpc/serial_executor.h"
#include "server/tenant/tenant_directory.h"
#include "tenon/v1/tenants.grpc.pb.h"

namespace tenon {

/// What the service works with. Pointers are borrowed and outlive it; functions are thread-safe.
struct TenantBackend {
  TenantDirectory* directory = nullptr;
  /// Live adapter versions of a tenant.
  std::function<int64_t(absl::string_view tenant)> count_adapters;
  /// Deletes every adapter of a tenant.
  std::function<absl::Status(absl::string_view tenant)> delete_adapters;
  /// Sums of a tenant, those not flushed yet included.
  std::function<std::vector<UsageRecord>(absl::string_view tenant)> usage;
};

/// Changes are durable before they are answered: they run on one thread of the service. What was
/// tried and did not come to a change is audited too, unless nobody known tried it.
///
/// Thread-safe. Outlives the gRPC server that it is registered with.
class TenantService final : public v1::TenantService::CallbackService {
 public:
  TenantService(TenantBackend backend, CallEnvironment environment);
  ~TenantService() override;

  grpc::ServerUnaryReactor* CreateTenant(grpc::CallbackServerContext* context,
                                         const v1::CreateTenantRequest* request,
                                         v1::CreateTenantResponse* response) override;
  grpc::ServerUnaryReactor* ListTenants(grpc::CallbackServerContext* context,
                                        const v1::ListTenantsRequest* request,
                                        v1::ListTenantsResponse* response) override;
  grpc::ServerUnaryReactor* GetTenant(grpc::CallbackServerContext* context,
                                      const v1::GetTenantRequest* request,
                                      v1::GetTenantResponse* response) override;
  grpc::ServerUnaryReactor* SetTenantState(grpc::CallbackServerContext* context,
                                           const v1::SetTenantStateRequest* request,
                                           v1::SetTenantStateResponse* response) override;
  grpc::ServerUnaryReactor* SetTenantLimits(grpc::CallbackServerContext* context,
                                            const v1::SetTenantLimitsRequest* request,
                                            v1::SetTenantLimitsResponse* response) override;
  grpc::ServerUnaryReactor* DeleteTenant(grpc::CallbackServerContext* context,
                                         const v1::DeleteTenantRequest* request,
                                         v1::DeleteTenantResponse* response) override;
  grpc::ServerUnaryReactor* CreateKey(grpc::CallbackServerContext* context,
                                      const v1::CreateKeyRequest* request,
                                      v1::CreateKeyResponse* response) override;
  grpc::ServerUnaryReactor* ListKeys(grpc::CallbackServerContext* context,
                                     const v1::ListKeysRequest* request,
                                     v1::ListKeysResponse* response) override;
  grpc::ServerUnaryReactor* RotateKey(grpc::CallbackServerContext* context,
                                      const v1::RotateKeyRequest* request,
                                      v1::RotateKeyResponse* response) override;
  grpc::ServerUnaryReactor* RevokeKey(grpc::CallbackServerContext* context,
                                      const v1::RevokeKeyRequest* request,
                                      v1::RevokeKeyResponse* response) override;
  grpc::ServerUnaryReactor* GetUsage(grpc::CallbackServerContext* context,
                                     const v1::GetUsageRequest* request,
                                     v1::GetUsageResponse* response) override;
  grpc::ServerUnaryReactor* ListAuditEntries(grpc::CallbackServerContext* context,
                                             const v1::ListAuditEntriesRequest* request,
                                             v1::ListAuditEntriesResponse* response) override;

 private:
  /// What a call is about, for its log line and the audit.
  struct Subject {
    std::string tenant;
    std::string object;
    bool changes = false;  ///< whether a failure is audited
  };
  using Work = absl::AnyInvocable<absl::Status(const AuditSource&)>;

  /// Lets the caller in or not, then runs `work` on the worker and answers.
  grpc::ServerUnaryReactor* Run(grpc::CallbackServerContext* context, absl::string_view method,
                                Subject subject, Work work);
  absl::Status Do(const CallRecord& record, absl::string_view method, const Subject& subject,
                  Work& work);
  /// The tenant of a key, for Subject; empty when there is no such key.
  std::string TenantOfKey(const std::string& id) const;

  const TenantBackend backend_;
  const CallEnvironment environment_;
  SerialExecutor worker_;  // last: its tasks use what is above
};

}  // namespace tenon

#endif  // TENON_SERVER_RPC_TENANT_SERVICE_H_
