#include "server/rpc/adapter_service.h"

#include <memory>
#include <string>
#include <utility>

#include "adapters/base/thread_priority.h"
#include "server/rpc/upload_call.h"
#include "server/rpc/version_calls.h"
#include "server/rpc/watch_call.h"

namespace tenon {

AdapterService::AdapterService(AdapterBackend backend, CallEnvironment environment)
    : backend_(backend),
      environment_(std::move(environment)),
      catalogue_(backend_.registry, backend_.cache),
      sharing_(backend_.registry, &catalogue_, backend_.directory) {
  worker_.Post([] { LowerThreadPriority(); });  // hashing and compiling give way to the engine
}

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

namespace {

const std::string& ObjectOf(const v1::DeleteAdapterRequest& request) { return request.adapter(); }

template <typename Request>
const std::string& ObjectOf(const Request& request) {
  return request.name();
}

}  // namespace

template <typename Request, typename Response>
grpc::ServerUnaryReactor* AdapterService::Change(
    grpc::CallbackServerContext* context, const char* method,
    absl::Status (*answer)(const AdapterBackend&, CallRecord&, const Request&, Response&),
    const Request* request, Response* response) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  auto record = std::make_shared<CallRecord>(&environment_, *context, method);
  if (!record->admission().ok()) {
    reactor->Finish(record->End(record->admission()));
    return reactor;
  }
  // gRPC keeps request, response and reactor until Finish.
  changes_.Post([this, reactor, record, answer, request, response] {
    const absl::Status status = answer(backend_, *record, *request, *response);
    AuditChange(*backend_.directory, *record, ObjectOf(*request), status);
    reactor->Finish(record->End(status));
  });
  return reactor;
}

grpc::ServerUnaryReactor* AdapterService::DeleteAdapter(grpc::CallbackServerContext* context,
                                                        const v1::DeleteAdapterRequest* request,
                                                        v1::DeleteAdapterResponse* response) {
  return Change(context, "DeleteAdapter", &tenon::DeleteAdapter, request, response);
}

grpc::ServerUnaryReactor* AdapterService::Promote(grpc::CallbackServerContext* context,
                                                  const v1::PromoteRequest* request,
                                                  v1::PromoteResponse* response) {
  return Change(context, "Promote", &PromoteAlias, request, response);
}

grpc::ServerUnaryReactor* AdapterService::Rollback(grpc::CallbackServerContext* context,
                                                   const v1::RollbackRequest* request,
                                                   v1::RollbackResponse* response) {
  return Change(context, "Rollback", &RollbackAlias, request, response);
}

grpc::ServerUnaryReactor* AdapterService::SetSplit(grpc::CallbackServerContext* context,
                                                   const v1::SetSplitRequest* request,
                                                   v1::SetSplitResponse* response) {
  return Change(context, "SetSplit", &SetAdapterSplit, request, response);
}

grpc::ServerUnaryReactor* AdapterService::GetHistory(grpc::CallbackServerContext* context,
                                                     const v1::GetHistoryRequest* request,
                                                     v1::GetHistoryResponse* response) {
  return Run(context, "GetHistory", [this, request, response](CallRecord& record) {
    return GetAdapterHistory(backend_, record, *request, *response);
  });
}

grpc::ServerUnaryReactor* AdapterService::Run(grpc::CallbackServerContext* context,
                                              absl::string_view method,
                                              absl::AnyInvocable<absl::Status(CallRecord&)> work) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  auto record = std::make_shared<CallRecord>(&environment_, *context, method);
  if (!record->admission().ok()) {
    reactor->Finish(record->End(record->admission()));
    return reactor;
  }
  changes_.Post([reactor, record, task = std::move(work)]() mutable {
    reactor->Finish(record->End(task(*record)));
  });
  return reactor;
}

grpc::ServerUnaryReactor* AdapterService::SetAdapterVisibility(
    grpc::CallbackServerContext* context, const v1::SetAdapterVisibilityRequest* request,
    v1::SetAdapterVisibilityResponse* response) {
  return Run(context, "SetAdapterVisibility", [this, request, response](CallRecord& record) {
    const std::string& name = request->visibility().name();
    record.Note("adapter", name);
    auto holds = sharing_.Set(record.tenant(), request->visibility(), record.audit_source());
    if (!holds.ok()) {  // what took place is in the audit log already
      AuditChange(*backend_.directory, record, name, holds.status());
      return holds.status();
    }
    *response->mutable_visibility() = *std::move(holds);
    return absl::OkStatus();
  });
}

grpc::ServerUnaryReactor* AdapterService::GetAdapterVisibility(
    grpc::CallbackServerContext* context, const v1::GetAdapterVisibilityRequest* request,
    v1::GetAdapterVisibilityResponse* response) {
  return Run(context, "GetAdapterVisibility", [this, request, response](CallRecord& record) {
    auto holds = sharing_.Find(record.tenant(), request->name());
    if (holds.ok()) {
      *response->mutable_visibility() = *std::move(holds);
    }
    return holds.status();
  });
}

grpc::ServerUnaryReactor* AdapterService::ListSharedAdapters(
    grpc::CallbackServerContext* context, const v1::ListSharedAdaptersRequest* request,
    v1::ListSharedAdaptersResponse* response) {
  return Run(context, "ListSharedAdapters", [this, request, response](CallRecord& record) {
    return sharing_.List(record.tenant(), *request, *response);
  });
}

grpc::ServerWriteReactor<v1::WatchAdaptersResponse>* AdapterService::WatchAdapters(
    grpc::CallbackServerContext* context, const v1::WatchAdaptersRequest* request) {
  auto call =
      std::make_shared<WatchCall>(&backend_, &environment_, *context, &watches_, &watch_room_);
  WatchCall* const reactor = call.get();
  reactor->Begin(*request);
  return reactor;
}

grpc::ServerUnaryReactor* AdapterService::Refresh(grpc::CallbackServerContext* context,
                                                  const v1::RefreshRequest*,
                                                  v1::RefreshResponse* response) {
  return Run(context, "Refresh", [this, response](CallRecord&) {
    const absl::StatusOr<int64_t> changed = backend_.versions->Refresh();
    if (changed.ok()) {
      response->set_num_changed(*changed);
      response->set_store_generation(backend_.versions->store_status().generation);
    }
    return changed.status();
  });
}

void AdapterService::Drain() { watch_room_.Drain(); }

}  // namespace tenon
