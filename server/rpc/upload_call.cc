#include "server/rpc/upload_call.h"

#include <cstddef>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"
#include "server/rpc/adapter_catalogue.h"

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
  if (!status.ok() || message_.has_digest()) {
    End(status);
  } else {
    ReadNext();
  }
}

absl::Status UploadCall::Store(const v1::UploadAdapterRequest& message) {
  if (message.has_header()) {
    record_.Note("adapter", order_.name());
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
  const absl::Status published = Publish(message.digest());
  record_.Audit(order_.name(), published);
  return published;
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

absl::Status UploadCall::Publish(const v1::UploadDigest& digest) {
  // Once more: other uploads may have been published since. Publications follow each other here.
  TENON_RETURN_IF_ERROR(CheckQuotas());
  const AdapterCatalogue catalogue(backend_->registry, backend_->cache);
  const auto before = backend_->registry->Acquire(record_.tenant(), {order_.name(), 0});
  TENON_ASSIGN_OR_RETURN(const AdapterInfo info,
                         backend_->publisher->Publish(record_.tenant(), order_.name(),
                                                      std::move(staged_), digest.sha256()));
  AdapterStatus status;
  status.adapter = AdapterHandle(std::make_shared<const AdapterInfo>(info));
  status.latest = true;
  *response_->mutable_adapter() = catalogue.ToProto(status);
  // Publications are this worker's alone, so nothing came between.
  response_->set_created(!before.ok() || before->id().version != info.id.version);
  record_.Note("version", absl::StrCat(info.id.version));
  record_.Note("digest", info.digest);
  return absl::OkStatus();
}

void UploadCall::End(const absl::Status& status) {
  if (ended_) {
    return;
  }
  ended_ = true;
  staged_.reset();
  const bool stored = status.ok() && response_->created();
  record_.environment().metrics->RecordUpload(OutcomeName(status.code()),
                                              stored ? response_->adapter().stored_bytes() : 0);
  Finish(record_.End(status));
}

}  // namespace tenon
