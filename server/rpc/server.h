// RpcServer: the gRPC listener with its limits, health and reflection.
#ifndef TENON_SERVER_RPC_SERVER_H_
#define TENON_SERVER_RPC_SERVER_H_

#include <grpcpp/server.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace tenon {

/// Files of a TLS listener, PEM, read again each few seconds: what is put in their place holds for
/// connections that come later.
struct TlsFiles {
  std::string certificate;  ///< chain, the server's own first; empty: plaintext
  std::string key;
  /// Authorities of client certificates. A client that shows a certificate must have one of theirs;
  /// one that shows none needs another credential. Empty: clients are not asked.
  std::string client_authorities;
};

struct RpcServerOptions {
  std::string address;  ///< "host:port", port 0 for a free one, or "unix:/path"
  TlsFiles tls;
  /// Full names of the services that health reports on, "" beside them.
  std::vector<std::string> health_names;
  int max_message_bytes = 4 << 20;
  int max_metadata_bytes = 16 << 10;
  int max_concurrent_streams = 1024;  ///< per connection
  /// A connection without calls is asked to go after this long.
  absl::Duration max_connection_idle = absl::Minutes(15);
  /// Every connection is asked to go after about this long, so that load spreads over replicas and
  /// replaced certificates take hold. Calls on it finish, however long they take.
  absl::Duration max_connection_age = absl::Hours(1);
  absl::Duration keepalive = absl::Seconds(30);
  absl::Duration keepalive_timeout = absl::Seconds(10);
};

/// Serves until destroyed. Health (grpc.health.v1) says NOT_SERVING for "" and for every service
/// until SetServing(true). Thread-safe.
class RpcServer {
 public:
  /// `services` are borrowed and outlive the server. UNAVAILABLE when the address cannot be bound.
  /// Every method checks its caller itself (CallRecord).
  static absl::StatusOr<std::unique_ptr<RpcServer>> Start(
      const RpcServerOptions& options, const std::vector<grpc::Service*>& services);
  ~RpcServer();
  RpcServer(const RpcServer&) = delete;
  RpcServer& operator=(const RpcServer&) = delete;

  void SetServing(bool serving);
  /// Of one service, or of "" alone.
  void SetServing(const std::string& service, bool serving);

  /// Accepts no new calls, and cancels what still runs at `deadline`. Waits for both.
  void Shutdown(absl::Time deadline);

  /// The address with the port that was bound.
  const std::string& address() const { return address_; }

 private:
  RpcServer(std::unique_ptr<grpc::Server> server, std::string address,
            std::vector<std::string> health_names);

  std::unique_ptr<grpc::Server> server_;
  const std::string address_;
  const std::vector<std::string> health_names_;
};

}  // namespace tenon

#endif  // TENON_SERVER_RPC_SERVER_H_
