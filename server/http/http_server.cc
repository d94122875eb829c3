#include "server/http/http_server.h"

#include <httplib.h>

#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "adapters/base/status_macros.h"

namespace tenon {
namespace {

// Scrapers and probes: a handful, short-lived.
constexpr size_t kConnectionThreads = 4;
constexpr size_t kMaxRequestBytes = 1024;
constexpr time_t kTimeoutSeconds = 5;
constexpr char kPlainText[] = "text/plain; charset=utf-8";
constexpr char kPrometheusText[] = "text/plain; version=0.0.4; charset=utf-8";

struct HostPort {
  std::string host;
  int port = 0;
};

absl::StatusOr<HostPort> ParseAddress(absl::string_view address) {
  const size_t colon = address.rfind(':');
  HostPort parsed;
  if (colon == absl::string_view::npos || colon == 0 ||
      !absl::SimpleAtoi(address.substr(colon + 1), &parsed.port) || parsed.port < 0 ||
      parsed.port > 65535) {
    return absl::InvalidArgumentError(
        absl::StrCat("HTTP address '", address, "' is not of the form host:port"));
  }
  absl::string_view host = address.substr(0, colon);
  if (absl::ConsumePrefix(&host, "[")) {
    absl::ConsumeSuffix(&host, "]");
  }
  parsed.host = std::string(host);
  return parsed;
}

// The library would share the port with another process (SO_REUSEPORT); a second server must fail.
void SetSocketOptions(socket_t socket) {
  const int yes = 1;
  setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
}

void AddRoutes(const HttpServer::Sources& sources, httplib::Server& server) {
  server.Get("/metrics",
             [metrics = sources.metrics](const httplib::Request&, httplib::Response& response) {
               response.set_content(metrics(), kPrometheusText);
             });
  server.Get("/healthz", [](const httplib::Request&, httplib::Response& response) {
    response.set_content("ok\n", kPlainText);
  });
  server.Get("/readyz",
             [ready = sources.ready](const httplib::Request&, httplib::Response& response) {
               const bool is_ready = ready();
               response.status = is_ready ? 200 : 503;
               response.set_content(is_ready ? "ready\n" : "not ready\n", kPlainText);
             });
}

}  // namespace

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(absl::string_view address,
                                                              Sources sources) {
  TENON_ASSIGN_OR_RETURN(const HostPort host_port, ParseAddress(address));
  auto server = std::make_unique<httplib::Server>();
  server->new_task_queue = [] { return new httplib::ThreadPool(kConnectionThreads); };
  server->set_payload_max_length(kMaxRequestBytes);
  server->set_read_timeout(kTimeoutSeconds);
  server->set_write_timeout(kTimeoutSeconds);
  server->set_keep_alive_timeout(kTimeoutSeconds);
  server->set_socket_options(SetSocketOptions);
  AddRoutes(sources, *server);
  int port = host_port.port;
  if (port == 0) {
    port = server->bind_to_any_port(host_port.host.c_str());
  } else if (!server->bind_to_port(host_port.host.c_str(), port)) {
    port = -1;
  }
  if (port < 0) {
    return absl::UnavailableError(absl::StrCat("cannot listen for HTTP on '", address, "'"));
  }
  std::unique_ptr<HttpServer> started(new HttpServer(std::move(server), port));
  TENON_RETURN_IF_ERROR(started->AwaitFirstAnswer(host_port.host));
  return started;
}

// Server::stop() does nothing until the accept loop runs, and nothing tells when it does: an
// answer.
absl::Status HttpServer::AwaitFirstAnswer(const std::string& host) {
  httplib::Client client(host, port_);
  client.set_connection_timeout(kTimeoutSeconds);
  client.set_read_timeout(kTimeoutSeconds);
  const httplib::Result result = client.Get("/healthz");
  if (!result || result->status != 200) {
    return absl::UnavailableError(
        absl::StrCat("the HTTP listener on ", host, ":", port_, " does not answer"));
  }
  return absl::OkStatus();
}

HttpServer::HttpServer(std::unique_ptr<httplib::Server> server, int port)
    : server_(std::move(server)), port_(port), thread_([this] { server_->listen_after_bind(); }) {}

HttpServer::~HttpServer() {
  server_->stop();
  thread_.join();
}

}  // namespace tenon
