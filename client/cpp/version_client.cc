#include "client/cpp/version_client.h"

#include <grpcpp/channel.h>

#include <utility>

#include "client/cpp/call.h"

namespace tenon {

using Stub = v1::AdapterService::Stub;

VersionClient::VersionClient(const std::shared_ptr<grpc::Channel>& channel, ClientOptions options)
    : options_(std::move(options)), stub_(v1::AdapterService::NewStub(channel)) {}

absl::StatusOr<v1::PromoteResponse> VersionClient::Promote(
    const v1::PromoteRequest& request) const {
  return Call(options_, *stub_, &Stub::Promote, request);
}

absl::StatusOr<v1::RollbackResponse> VersionClient::Rollback(
    const v1::RollbackRequest& request) const {
  return Call(options_, *stub_, &Stub::Rollback, request);
}

absl::StatusOr<v1::SetSplitResponse> VersionClient::SetSplit(
    const v1::SetSplitRequest& request) const {
  return Call(options_, *stub_, &Stub::SetSplit, request);
}

absl::StatusOr<v1::GetHistoryResponse> VersionClient::GetHistory(
    const v1::GetHistoryRequest& request) const {
  return Call(options_, *stub_, &Stub::GetHistory, request);
}

absl::Status VersionClient::Watch(
    int64_t after_generation,
    const std::function<bool(const v1::WatchAdaptersResponse&)>& on_message) const {
  grpc::ClientContext context;
  Prepare(options_, context);
  v1::WatchAdaptersRequest request;
  request.set_after_generation(after_generation);
  const auto reader = stub_->WatchAdapters(&context, request);
  v1::WatchAdaptersResponse message;
  bool enough = false;
  while (reader->Read(&message)) {
    if (!enough && !on_message(message)) {
      enough = true;
      context.TryCancel();
    }
  }
  const absl::Status status = FromGrpcStatus(reader->Finish());
  return enough ? absl::OkStatus() : status;
}

absl::StatusOr<std::vector<v1::NamedAdapter>> VersionClient::ReadSet() const {
  std::vector<v1::NamedAdapter> set;
  const absl::Status status = Watch(0, [&](const v1::WatchAdaptersResponse& message) {
    set.insert(set.end(), message.names().begin(), message.names().end());
    return !message.complete();
  });
  if (!status.ok()) {
    return status;
  }
  return set;
}

}  // namespace tenon
