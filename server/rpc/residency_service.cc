#include "server/rpc/residency_service.h"

#include <atomic>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"

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

std::string ObjectOf(const AdapterHandle& adapter) {
  return absl::StrCat(adapter.id().name, "@", adapter.id().version);
}

}  // namespace

ResidencyService::ResidencyService(ResidencyBackend backend, CallEnvironment environment)
    : backend_(std::move(backend)),
      environment_(std::move(environment)),
      report_(backend_.registry, backend_.tiers) {}

template <typename Request, typename Response>
grpc::ServerUnaryReactor* ResidencyService::Run(grpc::CallbackServerContext* context,
                                                absl::string_view method, const Request* request,
                                                Response* response, Change change) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  auto record = std::make_shared<CallRecord>(&environment_, *context, method);
  if (!record->admission().ok()) {
    reactor->Finish(record->End(record->admission()));
    return reactor;
  }
  record->Note("adapter", Quoted(request->adapter()));
  Call call{std::move(record), reactor, request->adapter(),
            // gRPC keeps the response until Finish.
            [this, response](const AdapterHandle& adapter) {
              *response->mutable_residency() = report_.Of(adapter);
            }};
  worker_.Post([this, call = std::move(call), change = std::move(change)] { Begin(call, change); });
  return reactor;
}

void ResidencyService::Begin(const Call& call, const Change& change) {
  const absl::StatusOr<AdapterHandle> adapter = Find(call);
  absl::Status status = adapter.status();
  if (status.ok() && change.before) {
    status = change.before(*adapter, call.record->audit_source());
  }
  if (!status.ok()) {
    End(call, adapter.ok() ? ObjectOf(*adapter) : call.adapter, status, /*audited=*/false);
    return;
  }
  change.work(*adapter, [this, call, change, adapter = *adapter](const absl::Status& outcome) {
    worker_.Post(
        [this, call, change, adapter, outcome] { Complete(call, change, adapter, outcome); });
  });
}

void ResidencyService::Complete(const Call& call, const Change& change,
                                const AdapterHandle& adapter, const absl::Status& outcome) {
  const absl::Status last =
      change.after ? change.after(adapter, call.record->audit_source(), outcome) : outcome;
  if (last.ok()) {
    call.answer(adapter);
  }
  End(call, ObjectOf(adapter), last, /*audited=*/change.keeps && last.ok());
}

void ResidencyService::End(const Call& call, const std::string& object, const absl::Status& status,
                           bool audited) {
  if (!audited) {
    AuditChange(*backend_.directory, *call.record, object, status);
  }
  call.reactor->Finish(call.record->End(status));
}

absl::StatusOr<AdapterHandle> ResidencyService::Find(const Call& call) const {
  TENON_ASSIGN_OR_RETURN(const AdapterRef ref, ParseAdapterRef("adapter", call.adapter));
  return backend_.registry->Acquire(call.record->tenant(), ref);
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
  return QuotaExceededError(
      "PINNED_BYTES", absl::StrCat("tenant:", tenant, "/pinned_bytes"),
      absl::StrCat("with adapter ", adapter.id().ToString(), " tenant ", tenant, " would have ",
                   num_bytes, " bytes pinned, its limit pinned_bytes is ", limit));
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
  Change change;
  change.keeps = false;
  change.work = [this](const AdapterHandle& adapter, Done done) {
    backend_.tiers.device->Prefetch(adapter, [this, adapter, finish = std::move(done)]() mutable {
      finish(LoadStatus(adapter));
    });
  };
  return Run(context, "LoadAdapter", request, response, std::move(change));
}

grpc::ServerUnaryReactor* ResidencyService::UnloadAdapter(grpc::CallbackServerContext* context,
                                                          const v1::UnloadAdapterRequest* request,
                                                          v1::UnloadAdapterResponse* response) {
  Change change;
  change.before = [this](const AdapterHandle& adapter, const AuditSource& source) {
    return Keep(adapter, {.pinned = false, .merge = MergeMode::kAuto}, source);
  };
  change.work = [this](const AdapterHandle& adapter, Done done) {
    backend_.tiers.merged->Forget(adapter->digest);
    backend_.tiers.device->Unpin(adapter->digest);
    backend_.tiers.device->Evict(adapter->digest);
    backend_.tiers.host->Erase(adapter->digest);
    backend_.wake_engine();
    done(absl::OkStatus());
  };
  return Run(context, "UnloadAdapter", request, response, std::move(change));
}

grpc::ServerUnaryReactor* ResidencyService::PinAdapter(grpc::CallbackServerContext* context,
                                                       const v1::PinAdapterRequest* request,
                                                       v1::PinAdapterResponse* response) {
  Change change;
  const auto took = std::make_shared<std::atomic<bool>>(false);  // the pin is this call's
  change.work = [this, took](const AdapterHandle& adapter, Done done) {
    if (absl::Status status = CheckPinnedLimit(adapter); !status.ok()) {
      done(std::move(status));
      return;
    }
    *took = !backend_.tiers.device->Describe(adapter->digest).pinned;
    // One of both runs: when there is no room for the pin, the other does not.
    auto finish = std::make_shared<Done>(std::move(done));
    const absl::Status pinned = backend_.tiers.device->PinResident(
        adapter, [this, adapter, finish] { (*finish)(LoadStatus(adapter)); });
    if (!pinned.ok()) {
      (*finish)(pinned);
    }
  };
  change.after = [this, took](const AdapterHandle& adapter, const AuditSource& source,
                              absl::Status status) {
    if (status.ok()) {
      status = Keep(adapter, {.pinned = true, .merge = std::nullopt}, source);
    }
    if (!status.ok() && *took) {
      backend_.tiers.device->Unpin(adapter->digest);
    }
    return status;
  };
  return Run(context, "PinAdapter", request, response, std::move(change));
}

grpc::ServerUnaryReactor* ResidencyService::UnpinAdapter(grpc::CallbackServerContext* context,
                                                         const v1::UnpinAdapterRequest* request,
                                                         v1::UnpinAdapterResponse* response) {
  Change change;
  change.before = [this](const AdapterHandle& adapter, const AuditSource& source) {
    return Keep(adapter, {.pinned = false, .merge = std::nullopt}, source);
  };
  change.work = [this](const AdapterHandle& adapter, Done done) {
    backend_.tiers.device->Unpin(adapter->digest);
    backend_.wake_engine();
    done(absl::OkStatus());
  };
  return Run(context, "UnpinAdapter", request, response, std::move(change));
}

ResidencyService::Change ResidencyService::MergeAlways() const {
  Change change;
  change.work = [this](const AdapterHandle& adapter, Done done) {
    backend_.tiers.merged->SetMode(Alone(adapter), MergeMode::kAlways, std::move(done));
  };
  change.after = [this](const AdapterHandle& adapter, const AuditSource& source,
                        absl::Status status) {
    const MergeMode before = ModeOf(PlacementOf(*backend_.directory, adapter.id()).merge);
    if (status.ok()) {
      status = Keep(adapter, {.pinned = std::nullopt, .merge = MergeMode::kAlways}, source);
    }
    // A merge that failed leaves AUTO in force; what was said before comes back.
    if (!status.ok() && !absl::IsAborted(status) && before != MergeMode::kAlways) {
      backend_.tiers.merged->SetMode(Alone(adapter), before, [](const absl::Status&) {});
    }
    return status;
  };
  return change;
}

ResidencyService::Change ResidencyService::MergeNotAlways(MergeMode mode) const {
  Change change;
  change.before = [this, mode](const AdapterHandle& adapter, const AuditSource& source) {
    return Keep(adapter, {.pinned = std::nullopt, .merge = mode}, source);
  };
  change.work = [this, mode](const AdapterHandle& adapter, Done done) {
    backend_.tiers.merged->SetMode(Alone(adapter), mode, std::move(done));
  };
  return change;
}

grpc::ServerUnaryReactor* ResidencyService::SetMergeMode(grpc::CallbackServerContext* context,
                                                         const v1::SetMergeModeRequest* request,
                                                         v1::SetMergeModeResponse* response) {
  const absl::StatusOr<MergeMode> mode = ModeOf(*request);
  Change change;
  if (!mode.ok()) {
    change.before = [status = mode.status()](const AdapterHandle&, const AuditSource&) {
      return status;
    };
  } else {
    change = *mode == MergeMode::kAlways ? MergeAlways() : MergeNotAlways(*mode);
  }
  return Run(context, "SetMergeMode", request, response, std::move(change));
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
