// EnvoyProcess: the real Envoy with deploy/envoy/, in front of a server of the test.
#ifndef TENON_TESTS_INTEGRATION_ENVOY_PROCESS_H_
#define TENON_TESTS_INTEGRATION_ENVOY_PROCESS_H_

#include <cstdint>
#include <memory>
#include <string>

#include "tests/child_process.h"

namespace tenon {

/// The configuration as it is deployed, but for paths and ports. Up, and the server healthy to it,
/// when the constructor returns.
class EnvoyProcess {
 public:
  /// `folder` holds edge.pem and edge.key, and takes the rendered files. `socket` is the server's
  /// "unix:/path".
  EnvoyProcess(const std::string& folder, const std::string& socket);

  /// "127.0.0.1:port" of its TLS listener.
  const std::string& address() const { return address_; }
  /// A counter or gauge, by its full name; -1 when there is none.
  int64_t Stat(const std::string& name) const;
  int64_t ResidentBytes() const { return process_->ResidentBytes(); }

 private:
  // The body of GET `path` of Envoy's own admin interface.
  std::string AdminGet(const std::string& path) const;

  std::unique_ptr<ChildProcess> process_;
  std::string admin_address_;
  std::string address_;
};

}  // namespace tenon

#endif  // TENON_TESTS_INTEGRATION_ENVOY_PROCESS_H_
