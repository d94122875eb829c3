#include "client/cpp/residency_client.h"

#include <string>
#include <utility>

#include "client/cpp/call.h"

namespace tenon {
namespace {

using Stub = v1::ResidencyService::Stub;

template <typename Request>
Request Naming(absl::string_view adapter) {
  Request request;
  request.set_adapter(std::string(adapter));
  return request;
}

template <typename Response>
absl::StatusOr<v1::AdapterResidency> ResidencyOf(absl::StatusOr<Response> response) {
  if (!response.ok()) {
    return response.status();
  }
  return std::move(*response->mutable_residency());
}

}  // namespace

ResidencyClient::ResidencyClient(const std::shared_ptr<grpc::Channel>& channel,
                                 ClientOptions options)
    : options_(std::move(options)), stub_(v1::ResidencyService::NewStub(channel)) {}

absl::StatusOr<v1::AdapterResidency> ResidencyClient::Load(absl::string_view adapter) const {
  return ResidencyOf(
      Call(options_, *stub_, &Stub::LoadAdapter, Naming<v1::LoadAdapterRequest>(adapter)));
}

absl::StatusOr<v1::AdapterResidency> ResidencyClient::Unload(absl::string_view adapter) const {
  return ResidencyOf(
      Call(options_, *stub_, &Stub::UnloadAdapter, Naming<v1::UnloadAdapterRequest>(adapter)));
}

absl::StatusOr<v1::AdapterResidency> ResidencyClient::Pin(absl::string_view adapter) const {
  return ResidencyOf(
      Call(options_, *stub_, &Stub::PinAdapter, Naming<v1::PinAdapterRequest>(adapter)));
}

absl::StatusOr<v1::AdapterResidency> ResidencyClient::Unpin(absl::string_view adapter) const {
  return ResidencyOf(
      Call(options_, *stub_, &Stub::UnpinAdapter, Naming<v1::UnpinAdapterRequest>(adapter)));
}

absl::StatusOr<v1::AdapterResidency> ResidencyClient::SetMergeMode(absl::string_view adapter,
                                                                   v1::MergeMode mode) const {
  auto request = Naming<v1::SetMergeModeRequest>(adapter);
  request.set_mode(mode);
  return ResidencyOf(Call(options_, *stub_, &Stub::SetMergeMode, request));
}

absl::StatusOr<v1::GetResidencyResponse> ResidencyClient::Get() const {
  return Call(options_, *stub_, &Stub::GetResidency, v1::GetResidencyRequest());
}

}  // namespace tenon
