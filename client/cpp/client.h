// Client: Tenon from C++, over one gRPC channel.
#ifndef TENON_CLIENT_CPP_CLIENT_H_
#define TENON_CLIENT_CPP_CLIENT_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "client/cpp/client_options.h"
#include "client/cpp/residency_client.h"
#include "client/cpp/tenant_client.h"
#include "client/cpp/version_client.h"
#include "tenon/v1/adapters.grpc.pb.h"
#include "tenon/v1/generation.grpc.pb.h"

namespace tenon {

/// Calls a server and turns gRPC's errors into absl::Status: same code, the server's message, and
/// behind it what its error details say (field, limit, when to retry).
///
/// Thread-safe: calls may run side by side on one Client.
///
///   const Client client = Client::Connect("127.0.0.1:50051");
///   v1::GenerateRequest request;
///   request.set_adapter("ticket-router");
///   request.set_prompt("Ticket: I was charged twice.\nLabel:");
///   absl::Status status = client.Generate(request, [](const v1::GenerateResponse& piece) {
///     std::cout << piece.text() << std::flush;
///     return true;  // false cancels
///   });
class Client {
 public:
  /// `address` is host:port or unix:/path. Connects on first use; a server that is not there shows
  /// as UNAVAILABLE then.
  static Client Connect(const std::string& address, ClientOptions options = {});

  /// Streams; `on_response` sees each message in order, on the calling thread, and cancels the call
  /// by returning false.
  absl::Status Generate(const v1::GenerateRequest& request,
                        const std::function<bool(const v1::GenerateResponse&)>& on_response) const;
  /// The same without a thread that waits: returns at once. `on_response` and, as the last of them,
  /// `on_done` are called one at a time on gRPC's own threads, of which there are few: they must
  /// not block. They may start another call. REQUIRES: this Client is there until `on_done` is
  /// called.
  void StartGenerate(const v1::GenerateRequest& request,
                     std::function<bool(const v1::GenerateResponse&)> on_response,
                     std::function<void(absl::Status)> on_done) const;
  absl::StatusOr<v1::GenerateOnceResponse> GenerateOnce(const v1::GenerateRequest& request) const;
  absl::StatusOr<v1::TokenizeResponse> Tokenize(const v1::TokenizeRequest& request) const;
  absl::StatusOr<v1::DetokenizeResponse> Detokenize(const v1::DetokenizeRequest& request) const;
  absl::StatusOr<v1::GetModelResponse> GetModel() const;

  /// Uploads the regular files of an adapter folder, as PEFT's save_pretrained leaves it, with
  /// their digest. `on_progress` (may be empty) sees bytes sent and bytes in all. NOT_FOUND when
  /// the folder holds no files.
  absl::StatusOr<v1::UploadAdapterResponse> UploadAdapter(
      absl::string_view name, const std::string& folder,
      const std::function<void(int64_t sent, int64_t total)>& on_progress = {}) const;
  /// The same with all that a header can say: alias, expectation, probes.
  absl::StatusOr<v1::UploadAdapterResponse> UploadAdapter(
      const v1::UploadHeader& header, const std::string& folder,
      const std::function<void(int64_t sent, int64_t total)>& on_progress = {}) const;

  /// All pages.
  absl::StatusOr<std::vector<v1::Adapter>> ListAdapters() const;
  /// `adapter` is "name" or "name@version", or "owner/name" of what another tenant shares.
  absl::StatusOr<v1::Adapter> GetAdapter(absl::string_view adapter) const;
  /// The versions that were deleted. `force` as in DeleteAdapterRequest.
  absl::StatusOr<std::vector<int64_t>> DeleteAdapter(absl::string_view adapter,
                                                     bool force = false) const;

  /// Aliases, histories and watching.
  const VersionClient& versions() const { return versions_; }

  /// Who else may use an adapter of the caller's; replaces what was said before.
  absl::StatusOr<v1::AdapterVisibility> SetAdapterVisibility(
      const v1::AdapterVisibility& visibility) const;
  absl::StatusOr<v1::AdapterVisibility> GetAdapterVisibility(absl::string_view name) const;
  /// What other tenants share with the caller; all pages.
  absl::StatusOr<std::vector<v1::Adapter>> ListSharedAdapters() const;

  /// Has the server look for what other replicas changed in a shared store.
  absl::StatusOr<v1::RefreshResponse> Refresh() const;

  const ResidencyClient& residency() const { return residency_; }
  /// For a client that is connected to the admin listener.
  const TenantClient& tenants() const { return tenants_; }

 private:
  Client(std::shared_ptr<grpc::Channel> channel, ClientOptions options);

  ClientOptions options_;
  ResidencyClient residency_;
  TenantClient tenants_;
  VersionClient versions_;
  std::shared_ptr<v1::GenerationService::Stub> generation_;
  std::shared_ptr<v1::AdapterService::Stub> adapters_;
};

}  // namespace tenon

#endif  // TENON_CLIENT_CPP_CLIENT_H_
