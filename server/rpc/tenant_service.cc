#include "server/rpc/tenant_service.h"

#include <limits>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"
#include "server/rpc/tenant_conversion.h"
#include "server/telemetry/logging.h"

namespace tenon {
namespace {

constexpr absl::Duration kDefaultOverlap = absl::Hours(1);
constexpr absl::Duration kMaxOverlap = absl::Hours(24 * 30);
constexpr int kMaxPageSize = 1000;
constexpr int kDefaultPageSize = 100;

// An administrator's own tenant, or any for an operator. What he may not see does not exist: the
// error is the one of a tenant or key that is not there.
absl::Status CheckReach(const Identity& identity, absl::string_view tenant,
                        absl::string_view object) {
  if (identity.roles.contains(Role::kOperator) || (!tenant.empty() && identity.tenant == tenant)) {
    return absl::OkStatus();
  }
  const bool is_key = !object.empty() && object != tenant;
  return is_key ? ResourceNotFoundError("KEY_NOT_FOUND", object,
                                        absl::StrCat("no key ", Quoted(object)))
                : ResourceNotFoundError("TENANT_NOT_FOUND", tenant,
                                        absl::StrCat("no tenant ", Quoted(tenant)));
}

template <typename Response>
void Show(const IssuedKey& issued, Response& response) {
  *response.mutable_key() = ToProto(issued.record);
  response.set_secret(issued.text);
}

absl::StatusOr<int> PageSize(const v1::ListAuditEntriesRequest& request) {
  if (request.page_size() < 0 || request.page_size() > kMaxPageSize) {
    return InvalidFieldError(
        "page_size", absl::StrCat(request.page_size(), " is not in [0, ", kMaxPageSize, "]"));
  }
  return request.page_size() == 0 ? kDefaultPageSize : request.page_size();
}

absl::StatusOr<absl::Duration> OverlapOf(const v1::RotateKeyRequest& request) {
  if (!request.has_overlap()) {
    return kDefaultOverlap;
  }
  TENON_ASSIGN_OR_RETURN(const absl::Duration overlap, FromProto("overlap", request.overlap()));
  if (overlap < absl::ZeroDuration() || overlap > kMaxOverlap) {
    return InvalidFieldError("overlap",
                             absl::StrCat(absl::FormatDuration(overlap), " is not in [0, ",
                                          absl::FormatDuration(kMaxOverlap), "]"));
  }
  return overlap;
}

}  // namespace

TenantService::TenantService(TenantBackend backend, CallEnvironment environment)
    : backend_(std::move(backend)), environment_(std::move(environment)) {}

TenantService::~TenantService() = default;

grpc::ServerUnaryReactor* TenantService::Run(grpc::CallbackServerContext* context,
                                             absl::string_view method, Subject subject, Work work) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  auto record = std::make_shared<CallRecord>(&environment_, *context, method);
  if (!record->admission().ok()) {
    reactor->Finish(record->End(record->admission()));
    return reactor;
  }
  // gRPC keeps request, response and reactor until Finish.
  worker_.Post([this, reactor, record, name = std::string(method), about = std::move(subject),
                task = std::move(work)]() mutable {
    record->Note("subject_tenant", about.tenant);
    record->Note("object", about.object);
    reactor->Finish(record->End(Do(*record, name, about, task)));
  });
  return reactor;
}

absl::Status TenantService::Do(const CallRecord& record, absl::string_view method,
                               const Subject& subject, Work& work) {
  const AuditSource source{record.identity().credential, record.peer(), std::string(method)};
  absl::Status status = CheckReach(record.identity(), subject.tenant, subject.object);
  if (status.ok()) {
    status = work(source);
  }
  if (!status.ok() && subject.changes) {
    const absl::Status audited = backend_.directory->Audit(source, subject.tenant, subject.object,
                                                           OutcomeName(status.code()));
    if (!audited.ok()) {
      LogLine(LogLevel::kError, "audit_failed").Add("error", audited);
    }
  }
  return status;
}

std::string TenantService::TenantOfKey(const std::string& id) const {
  const absl::StatusOr<KeyRecord> key = backend_.directory->FindKey(id);
  return key.ok() ? key->tenant : std::string();
}

grpc::ServerUnaryReactor* TenantService::CreateTenant(grpc::CallbackServerContext* context,
                                                      const v1::CreateTenantRequest* request,
                                                      v1::CreateTenantResponse* response) {
  return Run(context, "CreateTenant", {request->name(), request->name(), true},
             [this, request, response](const AuditSource& source) -> absl::Status {
               TENON_ASSIGN_OR_RETURN(const TenantRecord tenant,
                                      backend_.directory->Create(
                                          request->name(), FromProto(request->limits()), source));
               *response->mutable_tenant() = ToProto(tenant);
               return absl::OkStatus();
             });
}

grpc::ServerUnaryReactor* TenantService::ListTenants(grpc::CallbackServerContext* context,
                                                     const v1::ListTenantsRequest*,
                                                     v1::ListTenantsResponse* response) {
  return Run(context, "ListTenants", {}, [this, response](const AuditSource&) {
    for (const TenantRecord& tenant : backend_.directory->List()) {
      *response->add_tenants() = ToProto(tenant);
    }
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* TenantService::GetTenant(grpc::CallbackServerContext* context,
                                                   const v1::GetTenantRequest* request,
                                                   v1::GetTenantResponse* response) {
  return Run(context, "GetTenant", {request->name(), request->name()},
             [this, request, response](const AuditSource&) -> absl::Status {
               TENON_ASSIGN_OR_RETURN(const TenantRecord tenant,
                                      backend_.directory->Find(request->name()));
               *response->mutable_tenant() = ToProto(tenant);
               return absl::OkStatus();
             });
}

grpc::ServerUnaryReactor* TenantService::SetTenantState(grpc::CallbackServerContext* context,
                                                        const v1::SetTenantStateRequest* request,
                                                        v1::SetTenantStateResponse* response) {
  return Run(context, "SetTenantState", {request->name(), request->name(), true},
             [this, request, response](const AuditSource& source) -> absl::Status {
               TENON_ASSIGN_OR_RETURN(const TenantState state, FromProto(request->state()));
               TENON_ASSIGN_OR_RETURN(const TenantRecord tenant,
                                      backend_.directory->SetState(request->name(), state, source));
               *response->mutable_tenant() = ToProto(tenant);
               return absl::OkStatus();
             });
}

grpc::ServerUnaryReactor* TenantService::SetTenantLimits(grpc::CallbackServerContext* context,
                                                         const v1::SetTenantLimitsRequest* request,
                                                         v1::SetTenantLimitsResponse* response) {
  return Run(context, "SetTenantLimits", {request->name(), request->name(), true},
             [this, request, response](const AuditSource& source) -> absl::Status {
               TENON_ASSIGN_OR_RETURN(const TenantRecord tenant,
                                      backend_.directory->SetLimits(
                                          request->name(), FromProto(request->limits()), source));
               *response->mutable_tenant() = ToProto(tenant);
               return absl::OkStatus();
             });
}

grpc::ServerUnaryReactor* TenantService::DeleteTenant(grpc::CallbackServerContext* context,
                                                      const v1::DeleteTenantRequest* request,
                                                      v1::DeleteTenantResponse*) {
  return Run(context, "DeleteTenant", {request->name(), request->name(), true},
             [this, request](const AuditSource& source) -> absl::Status {
               const std::string& name = request->name();
               TENON_RETURN_IF_ERROR(backend_.directory->Find(name).status());
               const int64_t num_adapters = backend_.count_adapters(name);
               if (num_adapters > 0 && !request->delete_adapters()) {
                 return PreconditionError(
                     "TENANT_HAS_ADAPTERS", name,
                     absl::StrCat("tenant ", name, " has ", num_adapters,
                                  " adapter versions; set delete_adapters to delete them too"));
               }
               // Suspended first, so that no upload slips in between.
               TENON_RETURN_IF_ERROR(
                   backend_.directory->SetState(name, TenantState::kSuspended, source).status());
               TENON_RETURN_IF_ERROR(backend_.delete_adapters(name));
               return backend_.directory->Delete(name, source);
             });
}

grpc::ServerUnaryReactor* TenantService::CreateKey(grpc::CallbackServerContext* context,
                                                   const v1::CreateKeyRequest* request,
                                                   v1::CreateKeyResponse* response) {
  return Run(context, "CreateKey", {request->tenant(), "", true},
             [this, request, response](const AuditSource& source) -> absl::Status {
               TENON_ASSIGN_OR_RETURN(const Role role, ParseRole("role", request->role()));
               absl::Time expires = absl::InfiniteFuture();
               if (request->has_expire_time()) {
                 TENON_ASSIGN_OR_RETURN(expires, FromProto("expire_time", request->expire_time()));
               }
               TENON_ASSIGN_OR_RETURN(const IssuedKey issued, backend_.directory->CreateKey(
                                                                  request->tenant(), role, expires,
                                                                  request->note(), source));
               Show(issued, *response);
               return absl::OkStatus();
             });
}

grpc::ServerUnaryReactor* TenantService::ListKeys(grpc::CallbackServerContext* context,
                                                  const v1::ListKeysRequest* request,
                                                  v1::ListKeysResponse* response) {
  return Run(context, "ListKeys", {request->tenant(), ""},
             [this, request, response](const AuditSource&) -> absl::Status {
               if (!request->tenant().empty()) {
                 TENON_RETURN_IF_ERROR(backend_.directory->Find(request->tenant()).status());
               }
               for (const KeyRecord& key : backend_.directory->ListKeys(request->tenant())) {
                 *response->add_keys() = ToProto(key);
               }
               return absl::OkStatus();
             });
}

grpc::ServerUnaryReactor* TenantService::RotateKey(grpc::CallbackServerContext* context,
                                                   const v1::RotateKeyRequest* request,
                                                   v1::RotateKeyResponse* response) {
  return Run(context, "RotateKey", {TenantOfKey(request->id()), request->id(), true},
             [this, request, response](const AuditSource& source) -> absl::Status {
               TENON_ASSIGN_OR_RETURN(const absl::Duration overlap, OverlapOf(*request));
               TENON_ASSIGN_OR_RETURN(const IssuedKey issued, backend_.directory->RotateKey(
                                                                  request->id(), overlap, source));
               Show(issued, *response);
               return absl::OkStatus();
             });
}

grpc::ServerUnaryReactor* TenantService::RevokeKey(grpc::CallbackServerContext* context,
                                                   const v1::RevokeKeyRequest* request,
                                                   v1::RevokeKeyResponse* response) {
  return Run(context, "RevokeKey", {TenantOfKey(request->id()), request->id(), true},
             [this, request, response](const AuditSource& source) -> absl::Status {
               TENON_ASSIGN_OR_RETURN(const KeyRecord key,
                                      backend_.directory->RevokeKey(request->id(), source));
               *response->mutable_key() = ToProto(key);
               return absl::OkStatus();
             });
}

grpc::ServerUnaryReactor* TenantService::GetUsage(grpc::CallbackServerContext* context,
                                                  const v1::GetUsageRequest* request,
                                                  v1::GetUsageResponse* response) {
  return Run(context, "GetUsage", {request->tenant(), request->tenant()},
             [this, request, response](const AuditSource&) -> absl::Status {
               TENON_RETURN_IF_ERROR(backend_.directory->Find(request->tenant()).status());
               for (const UsageRecord& usage : backend_.usage(request->tenant())) {
                 *response->add_adapters() = ToProto(usage);
               }
               return absl::OkStatus();
             });
}

grpc::ServerUnaryReactor* TenantService::ListAuditEntries(
    grpc::CallbackServerContext* context, const v1::ListAuditEntriesRequest* request,
    v1::ListAuditEntriesResponse* response) {
  return Run(context, "ListAuditEntries", {request->tenant(), request->tenant()},
             [this, request, response](const AuditSource&) -> absl::Status {
               TENON_ASSIGN_OR_RETURN(const int page_size, PageSize(*request));
               const int64_t before =
                   request->before() == 0 ? std::numeric_limits<int64_t>::max() : request->before();
               TENON_ASSIGN_OR_RETURN(
                   const std::vector<AuditEntry> entries,
                   backend_.directory->ListAudit(request->tenant(), before, page_size));
               for (const AuditEntry& entry : entries) {
                 *response->add_entries() = ToProto(entry);
               }
               return absl::OkStatus();
             });
}

}  // namespace tenon
