#include "server/rpc/adapter_service.h"

#include <memory>
#include <utility>

#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"
#include "server/rpc/adapter_catalogue.h"
#include "server/rpc/upload_call.h"

namespace tenon {
namespace {

absl::Status Delete(const AdapterBackend& backend, const std::string& tenant,
                    const v1::DeleteAdapterRequest& request, v1::DeleteAdapterResponse& response) {
  TENON_ASSIGN_OR_RETURN(const AdapterRef ref, ParseAdapterRef("adapter", request.adapter()));
  const std::vector<int64_t> versions =
      AdapterCatalogue(backend.registry, backend.cache).LiveVersions(tenant, ref);
  TENON_RETURN_IF_ERROR(backend.publisher->Delete(tenant, ref));
  response.mutable_versions()->Assign(versions.begin(), versions.end());
  return absl::OkStatus();
}

}  // namespace

AdapterService::AdapterService(AdapterBackend backend, CallEnvironment environment)
    : backend_(backend), environment_(std::move(environment)) {}

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
  reactor->Finish(record.End(AdapterCatalogue(backend_.registry, backend_.cache)
                                 .List(record.tenant(), *request, *response)));
  return reactor;
}

grpc::ServerUnaryReactor* AdapterService::GetAdapter(grpc::CallbackServerContext* context,
                                                     const v1::GetAdapterRequest* request,
                                                     v1::GetAdapterResponse* response) {
  CallRecord record(&environment_, *context, "GetAdapter");
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(record.End(AdapterCatalogue(backend_.registry, backend_.cache)
                                 .Get(record.tenant(), *request, *response)));
  return reactor;
}

grpc::ServerUnaryReactor* AdapterService::DeleteAdapter(grpc::CallbackServerContext* context,
                                                        const v1::DeleteAdapterRequest* request,
                                                        v1::DeleteAdapterResponse* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  auto record = std::make_shared<CallRecord>(&environment_, *context, "DeleteAdapter");
  if (!record->admission().ok()) {
    reactor->Finish(record->End(record->admission()));
    return reactor;
  }
  // gRPC keeps request, response and reactor until Finish.
  worker_.Post([this, reactor, record, request, response] {
    record->Note("adapter", request->adapter());
    const absl::Status status = Delete(backend_, record->tenant(), *request, *response);
    record->Audit(request->adapter(), status);
    reactor->Finish(record->End(status));
  });
  return reactor;
}

}  // namespace tenon
