#include "server/rpc/adapter_service.h"

#include <memory>
#include <utility>

#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"
#include "server/rpc/upload_call.h"

namespace tenon {
namespace {

absl::Status Delete(const AdapterBackend& backend, const AdapterSharing& sharing,
                    const CallRecord& record, const v1::DeleteAdapterRequest& request,
                    v1::DeleteAdapterResponse& response) {
  const std::string& tenant = record.tenant();
  TENON_ASSIGN_OR_RETURN(const AdapterRef ref, ParseAdapterRef("adapter", request.adapter()));
  const std::vector<int64_t> versions =
      AdapterCatalogue(backend.registry, backend.cache).LiveVersions(tenant, ref);
  TENON_RETURN_IF_ERROR(backend.publisher->Delete(tenant, ref));
  response.mutable_versions()->Assign(versions.begin(), versions.end());
  return sharing.ForgetDeleted(tenant, ref.name, record.audit_source());
}

}  // namespace

AdapterService::AdapterService(AdapterBackend backend, CallEnvironment environment)
    : backend_(backend),
      environment_(std::move(environment)),
      catalogue_(backend_.registry, backend_.cache),
      sharing_(&catalogue_, environment_.directory) {}

AdapterService::~AdapterService() = default;

grpc::ServerReadReactor<v1::UploadAdapterRequest>* AdapterService::UploadAdapter(
    grpc::CallbackServerContext* context, v1::UploadAdapterResponse* response) {
  num_uploads_.fetch_add(1);
  auto call = std::make_shared<UploadCall>(&backend_, &environment_, *context, &worker_,
                                           &num_uploads_, response);
  UploadCall* const reactor = call.get();
  reactor->Begin();
  return reactor;
}

grpc::ServerUnaryReactor* AdapterService::ListAdapters(grpc::CallbackServerContext* context,
                                                       const v1::ListAdaptersRequest* request,
                                                       v1::ListAdaptersResponse* response) {
  CallRecord record(&environment_, *context, "ListAdapters");
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(record.End(catalogue_.List(record.tenant(), *request, *response)));
  return reactor;
}

grpc::ServerUnaryReactor* AdapterService::GetAdapter(grpc::CallbackServerContext* context,
                                                     const v1::GetAdapterRequest* request,
                                                     v1::GetAdapterResponse* response) {
  CallRecord record(&environment_, *context, "GetAdapter");
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(record.End(sharing_.Get(record.tenant(), *request, *response)));
  return reactor;
}

grpc::ServerUnaryReactor* AdapterService::Post(grpc::CallbackServerContext* context,
                                               absl::string_view method,
                                               absl::AnyInvocable<absl::Status(CallRecord&)> work) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  auto record = std::make_shared<CallRecord>(&environment_, *context, method);
  if (!record->admission().ok()) {
    reactor->Finish(record->End(record->admission()));
    return reactor;
  }
  // gRPC keeps request, response and reactor until Finish.
  worker_.Post([reactor, record, task = std::move(work)]() mutable {
    reactor->Finish(record->End(task(*record)));
  });
  return reactor;
}

grpc::ServerUnaryReactor* AdapterService::DeleteAdapter(grpc::CallbackServerContext* context,
                                                        const v1::DeleteAdapterRequest* request,
                                                        v1::DeleteAdapterResponse* response) {
  return Post(context, "DeleteAdapter", [this, request, response](CallRecord& record) {
    record.Note("adapter", request->adapter());
    const absl::Status status = Delete(backend_, sharing_, record, *request, *response);
    record.Audit(request->adapter(), status);
    return status;
  });
}

grpc::ServerUnaryReactor* AdapterService::SetAdapterVisibility(
    grpc::CallbackServerContext* context, const v1::SetAdapterVisibilityRequest* request,
    v1::SetAdapterVisibilityResponse* response) {
  return Post(context, "SetAdapterVisibility",
              [this, request, response](CallRecord& record) -> absl::Status {
                record.Note("adapter", request->visibility().name());
                TENON_ASSIGN_OR_RETURN(
                    *response->mutable_visibility(),
                    sharing_.Set(record.tenant(), request->visibility(), record.audit_source()));
                return absl::OkStatus();
              });
}

grpc::ServerUnaryReactor* AdapterService::GetAdapterVisibility(
    grpc::CallbackServerContext* context, const v1::GetAdapterVisibilityRequest* request,
    v1::GetAdapterVisibilityResponse* response) {
  return Post(context, "GetAdapterVisibility",
              [this, request, response](CallRecord& record) -> absl::Status {
                TENON_ASSIGN_OR_RETURN(*response->mutable_visibility(),
                                       sharing_.Find(record.tenant(), request->name()));
                return absl::OkStatus();
              });
}

grpc::ServerUnaryReactor* AdapterService::ListSharedAdapters(
    grpc::CallbackServerContext* context, const v1::ListSharedAdaptersRequest* request,
    v1::ListSharedAdaptersResponse* response) {
  return Post(context, "ListSharedAdapters", [this, request, response](CallRecord& record) {
    return sharing_.List(record.tenant(), *request, *response);
  });
}

}  // namespace tenon
