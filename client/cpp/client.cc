#include "client/cpp/client.h"

#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/client_callback.h>

#include <utility>

#include "client/cpp/adapter_folder.h"
#include "client/cpp/call.h"

namespace tenon {
namespace {

constexpr int64_t kChunkBytes = int64_t{1} << 20;  // adapters.proto: at most 1 MiB a chunk

std::shared_ptr<grpc::ChannelCredentials> MakeCredentials(const ClientOptions& options) {
  if (options.tls_authorities.empty()) {
    return grpc::InsecureChannelCredentials();
  }
  grpc::SslCredentialsOptions ssl;
  ssl.pem_root_certs = options.tls_authorities;
  ssl.pem_cert_chain = options.tls_certificate;
  ssl.pem_private_key = options.tls_key;
  return grpc::SslCredentials(ssl);
}

// A stream that is read as it comes. Owns itself, from Start to its end.
class StreamedCall final : public grpc::ClientReadReactor<v1::GenerateResponse> {
 public:
  StreamedCall(v1::GenerateRequest request,
               std::function<bool(const v1::GenerateResponse&)> on_response,
               std::function<void(absl::Status)> on_done)
      : request_(std::move(request)),
        on_response_(std::move(on_response)),
        on_done_(std::move(on_done)) {}

  void Start(const ClientOptions& options, v1::GenerationService::Stub& stub) {
    Prepare(options, context_);
    stub.async()->Generate(&context_, &request_, this);
    StartRead(&response_);
    StartCall();
  }

 private:
  void OnReadDone(bool ok) override {
    if (!ok) {
      return;
    }
    if (!on_response_(response_)) {
      context_.TryCancel();
    }
    StartRead(&response_);
  }
  void OnDone(const grpc::Status& status) override {
    const std::function<void(absl::Status)> on_done = std::move(on_done_);
    const absl::Status result = FromGrpcStatus(status);
    delete this;  // before the caller may let go of the channel, which must not end on this thread
    on_done(result);
  }

  const v1::GenerateRequest request_;
  const std::function<bool(const v1::GenerateResponse&)> on_response_;
  std::function<void(absl::Status)> on_done_;
  grpc::ClientContext context_;
  v1::GenerateResponse response_;
};

}  // namespace

Client::Client(std::shared_ptr<grpc::Channel> channel, ClientOptions options)
    : options_(options),
      residency_(channel, options),
      tenants_(channel, options),
      versions_(channel, options),
      generation_(v1::GenerationService::NewStub(channel)),
      adapters_(v1::AdapterService::NewStub(channel)) {}

Client Client::Connect(const std::string& address, ClientOptions options) {
  return Client(grpc::CreateChannel(address, MakeCredentials(options)), options);
}

absl::Status Client::Generate(
    const v1::GenerateRequest& request,
    const std::function<bool(const v1::GenerateResponse&)>& on_response) const {
  grpc::ClientContext context;
  Prepare(options_, context);
  const auto reader = generation_->Generate(&context, request);
  v1::GenerateResponse response;
  while (reader->Read(&response)) {
    if (!on_response(response)) {
      context.TryCancel();
    }
  }
  return FromGrpcStatus(reader->Finish());
}

void Client::StartGenerate(const v1::GenerateRequest& request,
                           std::function<bool(const v1::GenerateResponse&)> on_response,
                           std::function<void(absl::Status)> on_done) const {
  auto* const call = new StreamedCall(request, std::move(on_response), std::move(on_done));
  call->Start(options_, *generation_);
}

absl::StatusOr<v1::GenerateOnceResponse> Client::GenerateOnce(
    const v1::GenerateRequest& request) const {
  return Call(options_, *generation_, &v1::GenerationService::Stub::GenerateOnce, request);
}

absl::StatusOr<v1::TokenizeResponse> Client::Tokenize(const v1::TokenizeRequest& request) const {
  return Call(options_, *generation_, &v1::GenerationService::Stub::Tokenize, request);
}

absl::StatusOr<v1::DetokenizeResponse> Client::Detokenize(
    const v1::DetokenizeRequest& request) const {
  return Call(options_, *generation_, &v1::GenerationService::Stub::Detokenize, request);
}

absl::StatusOr<v1::GetModelResponse> Client::GetModel() const {
  return Call(options_, *generation_, &v1::GenerationService::Stub::GetModel,
              v1::GetModelRequest());
}

absl::StatusOr<v1::UploadAdapterResponse> Client::UploadAdapter(
    absl::string_view name, const std::string& folder,
    const std::function<void(int64_t, int64_t)>& on_progress) const {
  v1::UploadHeader header;
  header.set_name(std::string(name));
  return UploadAdapter(header, folder, on_progress);
}

absl::StatusOr<v1::UploadAdapterResponse> Client::UploadAdapter(
    const v1::UploadHeader& header, const std::string& folder,
    const std::function<void(int64_t, int64_t)>& on_progress) const {
  absl::StatusOr<AdapterFolder> files = AdapterFolder::Open(folder);
  if (!files.ok()) {
    return files.status();
  }
  grpc::ClientContext context;
  Prepare(options_, context);
  v1::UploadAdapterResponse response;
  const auto writer = adapters_->UploadAdapter(&context, &response);
  v1::UploadAdapterRequest message;
  *message.mutable_header() = header;
  // A failed Write means that the server has ended the call; Finish() below has its reason.
  bool writable = writer->Write(message);
  int64_t sent = 0;
  const absl::StatusOr<std::string> digest =
      files->Read(kChunkBytes, [&](const std::string& file_name, absl::string_view chunk) {
        message.mutable_chunk()->set_file_name(file_name);
        message.mutable_chunk()->set_data(chunk.data(), chunk.size());
        writable = writable && writer->Write(message);
        sent += static_cast<int64_t>(chunk.size());
        if (on_progress && writable) {
          on_progress(sent, files->num_bytes());
        }
        return writable;
      });
  if (digest.ok()) {
    message.mutable_digest()->set_sha256(*digest);
    writer->Write(message);
  } else if (writable) {
    context.TryCancel();
    writer->Finish();
    return digest.status();
  }
  writer->WritesDone();
  const absl::Status status = FromGrpcStatus(writer->Finish());
  if (!status.ok()) {
    return status;
  }
  return response;
}

absl::StatusOr<std::vector<v1::Adapter>> Client::ListAdapters() const {
  std::vector<v1::Adapter> adapters;
  v1::ListAdaptersRequest request;
  request.set_page_size(1000);
  do {
    auto page = Call(options_, *adapters_, &v1::AdapterService::Stub::ListAdapters, request);
    if (!page.ok()) {
      return page.status();
    }
    adapters.insert(adapters.end(), page->adapters().begin(), page->adapters().end());
    request.set_page_token(page->next_page_token());
  } while (!request.page_token().empty());
  return adapters;
}

absl::StatusOr<v1::Adapter> Client::GetAdapter(absl::string_view adapter) const {
  v1::GetAdapterRequest request;
  request.set_adapter(std::string(adapter));
  auto response = Call(options_, *adapters_, &v1::AdapterService::Stub::GetAdapter, request);
  if (!response.ok()) {
    return response.status();
  }
  return std::move(*response->mutable_adapter());
}

absl::StatusOr<std::vector<int64_t>> Client::DeleteAdapter(absl::string_view adapter,
                                                           bool force) const {
  v1::DeleteAdapterRequest request;
  request.set_force(force);
  request.set_adapter(std::string(adapter));
  auto response = Call(options_, *adapters_, &v1::AdapterService::Stub::DeleteAdapter, request);
  if (!response.ok()) {
    return response.status();
  }
  return std::vector<int64_t>(response->versions().begin(), response->versions().end());
}

absl::StatusOr<v1::AdapterVisibility> Client::SetAdapterVisibility(
    const v1::AdapterVisibility& visibility) const {
  v1::SetAdapterVisibilityRequest request;
  *request.mutable_visibility() = visibility;
  auto response =
      Call(options_, *adapters_, &v1::AdapterService::Stub::SetAdapterVisibility, request);
  if (!response.ok()) {
    return response.status();
  }
  return std::move(*response->mutable_visibility());
}

absl::StatusOr<v1::AdapterVisibility> Client::GetAdapterVisibility(absl::string_view name) const {
  v1::GetAdapterVisibilityRequest request;
  request.set_name(std::string(name));
  auto response =
      Call(options_, *adapters_, &v1::AdapterService::Stub::GetAdapterVisibility, request);
  if (!response.ok()) {
    return response.status();
  }
  return std::move(*response->mutable_visibility());
}

absl::StatusOr<std::vector<v1::Adapter>> Client::ListSharedAdapters() const {
  std::vector<v1::Adapter> adapters;
  v1::ListSharedAdaptersRequest request;
  do {
    auto response =
        Call(options_, *adapters_, &v1::AdapterService::Stub::ListSharedAdapters, request);
    if (!response.ok()) {
      return response.status();
    }
    adapters.insert(adapters.end(), response->adapters().begin(), response->adapters().end());
    request.set_page_token(response->next_page_token());
  } while (!request.page_token().empty());
  return adapters;
}

absl::StatusOr<v1::RefreshResponse> Client::Refresh() const {
  return Call(options_, *adapters_, &v1::AdapterService::Stub::Refresh, v1::RefreshRequest());
}

}  // namespace tenon
