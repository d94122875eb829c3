#include "server/tenant/method_policy.h"

#include "absl/container/flat_hash_map.h"
#include "absl/strings/match.h"

namespace tenon {
namespace {

constexpr RoleSet kOpen;
constexpr RoleSet kReaders = {Role::kInference, Role::kAdapterWriter, Role::kTenantAdmin};
constexpr RoleSet kWriters = {Role::kAdapterWriter, Role::kTenantAdmin};
constexpr RoleSet kRefreshers = {Role::kAdapterWriter, Role::kTenantAdmin, Role::kOperator};
constexpr RoleSet kTenantAdmins = {Role::kTenantAdmin};
constexpr RoleSet kAdmins = {Role::kTenantAdmin, Role::kOperator};
constexpr RoleSet kOperators = {Role::kOperator};

constexpr MethodPolicy kPolicies[] = {
    {"tenon.v1.GenerationService.Generate", kReaders},
    {"tenon.v1.GenerationService.GenerateOnce", kReaders},
    {"tenon.v1.GenerationService.Tokenize", kReaders},
    {"tenon.v1.GenerationService.Detokenize", kReaders},
    {"tenon.v1.GenerationService.GetModel", RoleSet::All()},
    {"tenon.v1.AdapterService.UploadAdapter", kWriters},
    {"tenon.v1.AdapterService.ListAdapters", kReaders},
    {"tenon.v1.AdapterService.GetAdapter", kReaders},
    {"tenon.v1.AdapterService.DeleteAdapter", kWriters},
    {"tenon.v1.AdapterService.Promote", kWriters},
    {"tenon.v1.AdapterService.Rollback", kWriters},
    {"tenon.v1.AdapterService.SetSplit", kWriters},
    {"tenon.v1.AdapterService.GetHistory", kReaders},
    {"tenon.v1.AdapterService.WatchAdapters", kReaders},
    {"tenon.v1.ResidencyService.LoadAdapter", kWriters},
    {"tenon.v1.ResidencyService.UnloadAdapter", kWriters},
    {"tenon.v1.ResidencyService.PinAdapter", kWriters},
    {"tenon.v1.ResidencyService.UnpinAdapter", kWriters},
    {"tenon.v1.ResidencyService.SetMergeMode", kTenantAdmins},
    {"tenon.v1.ResidencyService.GetResidency", RoleSet::All()},
    {"tenon.v1.AdapterService.Refresh", kRefreshers},
    {"tenon.v1.AdapterService.SetAdapterVisibility", kWriters},
    {"tenon.v1.AdapterService.GetAdapterVisibility", kReaders},
    {"tenon.v1.AdapterService.ListSharedAdapters", kReaders},
    {"tenon.v1.TenantService.CreateTenant", kOperators},
    {"tenon.v1.TenantService.ListTenants", kOperators},
    {"tenon.v1.TenantService.GetTenant", kAdmins},
    {"tenon.v1.TenantService.SetTenantState", kOperators},
    {"tenon.v1.TenantService.SetTenantLimits", kOperators},
    {"tenon.v1.TenantService.DeleteTenant", kOperators},
    {"tenon.v1.TenantService.CreateKey", kAdmins},
    {"tenon.v1.TenantService.ListKeys", kAdmins},
    {"tenon.v1.TenantService.RotateKey", kAdmins},
    {"tenon.v1.TenantService.RevokeKey", kAdmins},
    {"tenon.v1.TenantService.GetUsage", kAdmins},
    {"tenon.v1.TenantService.ListAuditEntries", kAdmins},
    // Probes and tools come without credentials, and learn nothing of a tenant.
    {"grpc.health.v1.Health.Check", kOpen},
    {"grpc.health.v1.Health.Watch", kOpen},
    {"grpc.reflection.v1alpha.ServerReflection.ServerReflectionInfo", kOpen},
};

using Index = absl::flat_hash_map<absl::string_view, const MethodPolicy*>;

Index MakeIndex() {
  Index index;
  for (const MethodPolicy& policy : kPolicies) {
    index.emplace(policy.method, &policy);
    if (absl::StartsWith(policy.method, "tenon.")) {
      index.emplace(policy.method.substr(policy.method.rfind('.') + 1), &policy);
    }
  }
  return index;
}

}  // namespace

std::span<const MethodPolicy> MethodPolicies() { return kPolicies; }

const MethodPolicy* FindMethodPolicy(absl::string_view method) {
  static const Index& index = *new Index(MakeIndex());
  const auto found = index.find(method);
  return found == index.end() ? nullptr : found->second;
}

}  // namespace tenon
