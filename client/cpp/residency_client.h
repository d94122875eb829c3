// ResidencyClient: the calls of residency.proto.
#ifndef TENON_CLIENT_CPP_RESIDENCY_CLIENT_H_
#define TENON_CLIENT_CPP_RESIDENCY_CLIENT_H_

#include <grpcpp/channel.h>

#include <memory>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "client/cpp/client_options.h"
#include "tenon/v1/residency.grpc.pb.h"

namespace tenon {

/// Where adapters are, and what to do about it. `adapter` is "name" or "name@version"; each call
/// answers with the state that it left behind. Errors as Client has them. Thread-safe. Made by
/// Client.
class ResidencyClient {
 public:
  ResidencyClient(const std::shared_ptr<grpc::Channel>& channel, ClientOptions options);

  absl::StatusOr<v1::AdapterResidency> Load(absl::string_view adapter) const;
  absl::StatusOr<v1::AdapterResidency> Unload(absl::string_view adapter) const;
  absl::StatusOr<v1::AdapterResidency> Pin(absl::string_view adapter) const;
  absl::StatusOr<v1::AdapterResidency> Unpin(absl::string_view adapter) const;
  absl::StatusOr<v1::AdapterResidency> SetMergeMode(absl::string_view adapter,
                                                    v1::MergeMode mode) const;
  absl::StatusOr<v1::GetResidencyResponse> Get() const;

 private:
  ClientOptions options_;
  std::shared_ptr<v1::ResidencyService::Stub> stub_;
};

}  // namespace tenon

#endif  // TENON_CLIENT_CPP_RESIDENCY_CLIENT_H_
