// HttpServer: the operator's listener: metrics, liveness and readiness over HTTP/1.1.
#ifndef TENON_SERVER_HTTP_HTTP_SERVER_H_
#define TENON_SERVER_HTTP_HTTP_SERVER_H_

#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace httplib {
class Server;
}

namespace tenon {

/// Answers
///   GET /metrics   Prometheus text
///   GET /healthz   200 while the process lives
///   GET /readyz    200 when serving, 503 when starting or draining
/// and 404 to everything else. Bodies of requests are refused.
///
/// Owns a listener thread and a few connection threads. The sources are called on those, at the
/// same time, and must be thread-safe. The destructor stops.
class HttpServer {
 public:
  struct Sources {
    std::function<std::string()> metrics;  ///< text of /metrics
    std::function<bool()> ready;
  };

  /// Listens on "host:port"; port 0 takes a free one. INVALID_ARGUMENT for an address that is not
  /// of that form, UNAVAILABLE when it cannot be bound.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(absl::string_view address,
                                                           Sources sources);
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  int port() const { return port_; }

 private:
  HttpServer(std::unique_ptr<httplib::Server> server, int port);
  absl::Status AwaitFirstAnswer(const std::string& host);

  std::unique_ptr<httplib::Server> server_;
  const int port_;
  std::thread thread_;
};

}  // namespace tenon

#endif  // TENON_SERVER_HTTP_HTTP_SERVER_H_
