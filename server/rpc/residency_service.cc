#include "server/rpc/residency_service.h"

#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"
#include "adapters/registry/adapter_selection.h"

namespace tenon {
namespace {

absl::StatusOr<MergeMode> ModeOf(const v1::SetMergeModeRequest& request) {
  switch (request.mode()) {
    case v1::MERGE_MODE_AUTO:
      return MergeMode::kAuto;
    case v1::MERGE_MODE_ALWAYS:
      return MergeMode::kAlways;
    case v1::MERGE_MODE_NEVER:
      return MergeMode::kNever;
    default:
      return InvalidFieldError("mode", "must be AUTO, ALWAYS or NEVER");
  }
}

std::shared_ptr<const AdapterSelection> Alone(const AdapterHandle& adapter) {
  return std::make_shared<const AdapterSelection>(std::vector<WeightedAdapter>{{adapter, 1.0f}});
}

}  // namespace

ResidencyService::ResidencyService(ResidencyBackend backend, CallEnvironment environment)
    : backend_(std::move(backend)),
      environment_(std::move(environment)),
      report_(backend_.registry, backend_.tiers) {}

template <typename Request, typename Response>
grpc::ServerUnaryReactor* ResidencyService::Run(grpc::CallbackServerContext* context,
                                                absl::string_view method, const Request* request,
                                                Response* response, Work work) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  auto record = std::make_shared<CallRecord>(&environment_, *context, method);
  const auto find = [&]() -> absl::StatusOr<AdapterHandle> {
    TENON_RETURN_IF_ERROR(record->admission());
    record->Note("adapter", Quoted(request->adapter()));
    TENON_ASSIGN_OR_RETURN(const AdapterRef ref, ParseAdapterRef("adapter", request->adapter()));
    return backend_.registry->Acquire(record->tenant(), ref);
  };
  const absl::StatusOr<AdapterHandle> adapter = find();
  if (!adapter.ok()) {
    reactor->Finish(record->End(adapter.status()));
    return reactor;
  }
  // gRPC keeps request, response and reactor until Finish.
  work(*adapter, [this, reactor, record, response, handle = *adapter](absl::Status status) {
    if (status.ok()) {
      *response->mutable_residency() = report_.Of(handle);
    }
    reactor->Finish(record->End(status));
  });
  return reactor;
}

absl::Status ResidencyService::CheckPinnedLimit(const AdapterHandle& adapter) const {
  const std::string& tenant = adapter.id().tenant;
  const int64_t limit = backend_.pinned_limit(tenant);
  if (limit == 0) {
    return absl::OkStatus();
  }
  absl::flat_hash_set<std::string> counted = {adapter->digest};
  int64_t num_bytes = adapter->resident_bytes;
  for (const AdapterStatus& status : backend_.registry->List(tenant)) {
    const AdapterInfo& info = *status.adapter;
    if (backend_.tiers.device->Describe(info.digest).pinned && counted.insert(info.digest).second) {
      num_bytes += info.resident_bytes;
    }
  }
  if (num_bytes <= limit) {
    return absl::OkStatus();
  }
  return QuotaExceededError("PINNED_BYTES", absl::StrCat("tenant:", tenant, "/pinned_bytes"),
                            absl::StrCat("with adapter ", adapter.id().ToString(), " tenant ",
                                         tenant, " would have ", num_bytes,
                                         " bytes pinned, its limit pinned_bytes is ", limit));
}

absl::Status ResidencyService::LoadStatus(const AdapterHandle& adapter) const {
  const absl::Status status = backend_.tiers.device->Pin(adapter->digest).status();
  return absl::IsUnavailable(status)
             ? RetryLaterError("EVICTED",
                               absl::StrCat("adapter ", adapter.id().ToString(),
                                            " was loaded, and gave way to others at once"),
                               absl::Seconds(1))
             : status;
}

grpc::ServerUnaryReactor* ResidencyService::LoadAdapter(grpc::CallbackServerContext* context,
                                                        const v1::LoadAdapterRequest* request,
                                                        v1::LoadAdapterResponse* response) {
  return Run(context, "LoadAdapter", request, response,
             [this](const AdapterHandle& adapter, Done done) {
               backend_.tiers.device->Prefetch(
                   adapter, [this, adapter, finish = std::move(done)]() mutable {
                     finish(LoadStatus(adapter));
                   });
             });
}

grpc::ServerUnaryReactor* ResidencyService::UnloadAdapter(grpc::CallbackServerContext* context,
                                                          const v1::UnloadAdapterRequest* request,
                                                          v1::UnloadAdapterResponse* response) {
  return Run(context, "UnloadAdapter", request, response,
             [this](const AdapterHandle& adapter, Done done) {
               backend_.tiers.merged->Forget(adapter->digest);
               backend_.tiers.device->Unpin(adapter->digest);
               backend_.tiers.device->Evict(adapter->digest);
               backend_.tiers.host->Erase(adapter->digest);
               backend_.wake_engine();
               done(absl::OkStatus());
             });
}

grpc::ServerUnaryReactor* ResidencyService::PinAdapter(grpc::CallbackServerContext* context,
                                                       const v1::PinAdapterRequest* request,
                                                       v1::PinAdapterResponse* response) {
  return Run(context, "PinAdapter", request, response,
             [this](const AdapterHandle& adapter, Done done) {
               if (absl::Status status = CheckPinnedLimit(adapter); !status.ok()) {
                 done(std::move(status));
                 return;
               }
               // One of both runs: when there is no room for the pin, the other does not.
               auto finish = std::make_shared<Done>(std::move(done));
               const absl::Status pinned =
                   backend_.tiers.device->PinResident(adapter, [this, adapter, finish] {
                     const absl::Status loaded = LoadStatus(adapter);
                     if (!loaded.ok()) {
                       backend_.tiers.device->Unpin(adapter->digest);
                     }
                     (*finish)(loaded);
                   });
               if (!pinned.ok()) {
                 (*finish)(pinned);
               }
             });
}

grpc::ServerUnaryReactor* ResidencyService::UnpinAdapter(grpc::CallbackServerContext* context,
                                                         const v1::UnpinAdapterRequest* request,
                                                         v1::UnpinAdapterResponse* response) {
  return Run(context, "UnpinAdapter", request, response,
             [this](const AdapterHandle& adapter, Done done) {
               backend_.tiers.device->Unpin(adapter->digest);
               backend_.wake_engine();
               done(absl::OkStatus());
             });
}

grpc::ServerUnaryReactor* ResidencyService::SetMergeMode(grpc::CallbackServerContext* context,
                                                         const v1::SetMergeModeRequest* request,
                                                         v1::SetMergeModeResponse* response) {
  return Run(context, "SetMergeMode", request, response,
             [this, request](const AdapterHandle& adapter, Done done) {
               const absl::StatusOr<MergeMode> mode = ModeOf(*request);
               if (!mode.ok()) {
                 done(mode.status());
                 return;
               }
               backend_.tiers.merged->SetMode(Alone(adapter), *mode, std::move(done));
             });
}

grpc::ServerUnaryReactor* ResidencyService::GetResidency(grpc::CallbackServerContext* context,
                                                         const v1::GetResidencyRequest*,
                                                         v1::GetResidencyResponse* response) {
  CallRecord record(&environment_, *context, "GetResidency");
  if (record.admission().ok()) {
    report_.AddTenant(record.tenant(), *response);
    if (record.identity().roles.contains(Role::kOperator)) {
      *response->mutable_totals() = report_.Totals();
    }
  }
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  reactor->Finish(record.End(absl::OkStatus()));
  return reactor;
}

}  // namespace tenon
