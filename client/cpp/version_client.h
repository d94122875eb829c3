// VersionClient: what adapter names mean, from C++.
#ifndef TENON_CLIENT_CPP_VERSION_CLIENT_H_
#define TENON_CLIENT_CPP_VERSION_CLIENT_H_

#include <grpcpp/channel.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/cpp/client_options.h"
#include "tenon/v1/adapters.grpc.pb.h"

namespace tenon {

/// Moves aliases, reads histories and watches. Errors as Client has them; thread-safe. Made by
/// Client.
///
///   v1::PromoteRequest request;
///   request.set_name("fr");
///   request.set_alias("stable");
///   request.set_version(7);
///   request.set_expected_version(6);  // ABORTED when somebody was faster
///   client.versions().Promote(request);
class VersionClient {
 public:
  VersionClient(const std::shared_ptr<grpc::Channel>& channel, ClientOptions options);

  absl::StatusOr<v1::PromoteResponse> Promote(const v1::PromoteRequest& request) const;
  absl::StatusOr<v1::RollbackResponse> Rollback(const v1::RollbackRequest& request) const;
  absl::StatusOr<v1::SetSplitResponse> SetSplit(const v1::SetSplitRequest& request) const;
  absl::StatusOr<v1::GetHistoryResponse> GetHistory(const v1::GetHistoryRequest& request) const;

  /// Watches until `on_message` returns false (OK then) or the server ends it. `after_generation`
  /// as in WatchAdaptersRequest. `on_message` runs on the calling thread.
  absl::Status Watch(int64_t after_generation,
                     const std::function<bool(const v1::WatchAdaptersResponse&)>& on_message) const;

  /// The full set as it is now, by name.
  absl::StatusOr<std::vector<v1::NamedAdapter>> ReadSet() const;

 private:
  ClientOptions options_;
  std::shared_ptr<v1::AdapterService::Stub> stub_;
};

}  // namespace tenon

#endif  // TENON_CLIENT_CPP_VERSION_CLIENT_H_
