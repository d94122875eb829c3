#include "server/rpc/upload_call.h"

#include <cstddef>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"
#include "server/rpc/acceptance_conversion.h"
#include "server/rpc/adapter_catalogue.h"
#include "server/rpc/generation_call.h"
#include "server/rpc/version_calls.h"

namespace tenon {

UploadCall::UploadCall(const AdapterBackend* backend, const CallEnvironment* environment,
                       const grpc::CallbackServerContext& context, SerialExecutor* worker,
                       std::atomic<int64_t>* num_uploads, v1::UploadAdapterResponse* response)
    : backend_(backend),
      worker_(worker),
      num_uploads_(num_uploads),
      response_(response),
      record_(environment, context, "UploadAdapter") {
  record_.set_request_id("");
}

UploadCall::~UploadCall() { num_uploads_->fetch_sub(1); }

void UploadCall::Begin() {
  self_ = shared_from_this();
  if (!record_.admission().ok()) {
    End(record_.admission());
    return;
  }
  if (num_uploads_->load() > backend_->max_concurrent_uploads) {
    End(QuotaExceededError(
        "TOO_MANY_UPLOADS", "uploads",
        absl::StrCat("more than ", backend_->max_concurrent_uploads, " uploads at the same time"),
        absl::Seconds(1)));
    return;
  }
  StartSendInitialMetadata();  // tells the client that it may send
  Post([this] { ReadNext(); });
}

void UploadCall::Post(absl::AnyInvocable<void()> task) {
  worker_->Post([claim = shared_from_this(), work = std::move(task)]() mutable { work(); });
}

void UploadCall::OnReadDone(bool ok) {
  Post([this, ok] { TakeMessage(ok); });
}

void UploadCall::OnCancel() {
  cancelled_ = true;
  Post([this] {
    if (acceptance_ != nullptr) {
      acceptance_->Cancel();
    }
  });
}

// The last claim goes with a task, so that what is staged is removed on the worker.
void UploadCall::OnDone() {
  worker_->Post([claim = std::move(self_)] {});
}

void UploadCall::ReadNext() {
  idle_alarm_ = std::make_unique<grpc::Alarm>();
  const absl::Time deadline = absl::Now() + backend_->upload_idle_timeout;
  idle_alarm_->Set(absl::ToChronoTime(deadline), [weak = weak_from_this()](bool expired) {
    const std::shared_ptr<UploadCall> call = expired ? weak.lock() : nullptr;
    if (call != nullptr) {
      call->Post([raw = call.get()] {
        raw->End(absl::AbortedError(absl::StrCat(
            "no message for ", absl::FormatDuration(raw->backend_->upload_idle_timeout))));
      });
    }
  });
  StartRead(&message_);
}

void UploadCall::TakeMessage(bool ok) {
  if (ended_) {
    return;
  }
  idle_alarm_.reset();
  if (!ok) {
    End(cancelled_ ? absl::CancelledError("the client cancelled the upload") : order_.Incomplete());
    return;
  }
  absl::Status status = order_.Accept(message_);
  if (status.ok()) {
    status = Store(message_);
  }
  if (!status.ok()) {
    End(status);
  } else if (!message_.has_digest()) {
    ReadNext();
  }
}

absl::Status UploadCall::Store(const v1::UploadAdapterRequest& message) {
  if (message.has_header()) {
    record_.Note("adapter", order_.name());
    TENON_RETURN_IF_ERROR(ValidateProbes(order_.header(), backend_->limits));
    TENON_RETURN_IF_ERROR(CheckQuotas());
    TENON_ASSIGN_OR_RETURN(staged_, backend_->publisher->BeginUpload());
    return absl::OkStatus();
  }
  if (message.has_chunk()) {
    const std::string& data = message.chunk().data();
    num_bytes_ += static_cast<int64_t>(data.size());
    TENON_RETURN_IF_ERROR(CheckQuotas());
    return staged_->Append(message.chunk().file_name(),
                           std::as_bytes(std::span(data.data(), data.size())));
  }
  return BeginAcceptance(message.digest());
}

absl::Status UploadCall::CheckQuotas() const {
  int64_t num_adapters = 0;
  int64_t num_bytes = 0;
  for (const AdapterStatus& status : backend_->registry->List(record_.tenant())) {
    if (status.state == AdapterState::kLive) {
      ++num_adapters;
      num_bytes += status.adapter->stored_bytes;
    }
  }
  return record_.environment().quotas->CheckAdapters(record_.tenant(), num_adapters, num_bytes,
                                                     num_bytes_);
}

absl::Status UploadCall::BeginAcceptance(const v1::UploadDigest& digest) {
  TENON_RETURN_IF_ERROR(CheckQuotas());
  TENON_ASSIGN_OR_RETURN(
      candidate_, backend_->publisher->Prepare(record_.tenant(), order_.name(), std::move(staged_),
                                               digest.sha256()));
  const AdapterHandle& handle = candidate_->handle();
  TENON_ASSIGN_OR_RETURN(std::vector<AcceptanceProbe> probes,
                         ToProbes(order_.header(), backend_->limits,
                                  *backend_->acceptance.tokenizer, handle->num_virtual_tokens));
  auto on_done = [claim = shared_from_this()] {
    claim->Post([call = claim.get()] { call->FinishAcceptance(); });
  };
  AcceptanceRun::Environment environment = backend_->acceptance;
  environment.share = ShareOf(record_.environment().quotas->LimitsOf(record_.tenant()));
  TENON_ASSIGN_OR_RETURN(acceptance_,
                         AcceptanceRun::Start(std::move(environment), record_.tenant(), handle,
                                              std::move(probes), std::move(on_done)));
  return absl::OkStatus();
}

void UploadCall::FinishAcceptance() {
  End(cancelled_ ? absl::CancelledError("the client cancelled the upload") : Publish());
}

absl::Status UploadCall::Publish() {
  TENON_ASSIGN_OR_RETURN(const AcceptanceReport report, acceptance_->Report());
  record_.Note("acceptance_ms", absl::StrCat(absl::ToInt64Milliseconds(report.elapsed)));
  TENON_RETURN_IF_ERROR(AcceptanceError(order_.name(), report));
  // Once more: other uploads may have been published since. Publications follow each other here.
  TENON_RETURN_IF_ERROR(CheckQuotas());
  // What a deletion could not take back: a new name begins as its tenant's alone.
  TENON_RETURN_IF_ERROR(ForgetShareOfGone(*backend_, record_, order_.name()));
  const v1::AcceptanceReport proto = ToProto(report);
  AdapterCandidate candidate = *std::move(candidate_);
  candidate_.reset();
  TENON_ASSIGN_OR_RETURN(
      const CommittedVersion committed,
      backend_->publisher->Commit(std::move(candidate), MakeOrder(), ToCatalogue(proto)));
  const int64_t version = committed.info.id.version;
  for (const AdapterStatus& status : StatusesOf(committed.name.after)) {
    if (status.adapter.id().version == version) {
      *response_->mutable_adapter() =
          AdapterCatalogue(backend_->registry, backend_->cache).ToProto(status);
    }
  }
  *response_->mutable_adapter()->mutable_acceptance() = proto;
  response_->set_created(committed.created);
  response_->set_generation(committed.name.after.generation);
  record_.Note("version", absl::StrCat(version));
  record_.Note("digest", committed.info.digest);
  return absl::OkStatus();
}

CommitOrder UploadCall::MakeOrder() const {
  const v1::UploadHeader& header = order_.header();
  CommitOrder order;
  order.actor = record_.identity().credential;
  if (header.no_promote()) {
    order.alias.clear();
  } else if (!header.alias().empty()) {
    order.alias = header.alias();
  }
  if (header.has_expected_version()) {
    order.expected_version = header.expected_version();
  }
  return order;
}

void UploadCall::End(const absl::Status& status) {
  if (ended_) {
    return;
  }
  ended_ = true;
  staged_.reset();
  if (candidate_.has_value()) {
    backend_->publisher->Reject(*std::move(candidate_));
    candidate_.reset();
  }
  const bool stored = status.ok() && response_->created();
  record_.environment().metrics->RecordUpload(OutcomeName(status.code()),
                                              stored ? response_->adapter().stored_bytes() : 0);
  if (!order_.name().empty()) {  // it was let in, and this is the worker
    AuditChange(*backend_->directory, record_, AuditObject(), status);
  }
  Finish(record_.End(status));
}

std::string UploadCall::AuditObject() const {
  const int64_t version = response_->adapter().version();
  return version == 0 ? order_.name() : absl::StrCat(order_.name(), "@", version);
}

}  // namespace tenon
