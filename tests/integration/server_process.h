// ServerProcess: the real binary as a child of the test.
#ifndef TENON_TESTS_INTEGRATION_SERVER_PROCESS_H_
#define TENON_TESTS_INTEGRATION_SERVER_PROCESS_H_

#include <grpcpp/channel.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tests/child_process.h"

namespace tenon {

/// A folder of its own, removed with the object.
class ScratchFolder {
 public:
  ScratchFolder();
  ~ScratchFolder();
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

/// tenon-server with the tiny model on a Unix socket, up and SERVING when the constructor returns.
/// Killed with the object if it still runs. Its log goes to the test's standard error.
class ServerProcess {
 public:
  /// The store and the socket are in `folder`, so that a second process can follow the first one.
  explicit ServerProcess(const std::string& folder, std::vector<std::string> flags = {});
  ServerProcess(const ServerProcess&) = delete;
  ServerProcess& operator=(const ServerProcess&) = delete;

  /// Where it listens for gRPC.
  const std::string& address() const { return socket_; }
  /// Where it listens for TenantService.
  std::string admin_address() const { return ReadyField("admin"); }
  /// A channel with a connection of its own, to address() or another one.
  std::shared_ptr<grpc::Channel> NewChannel() const { return NewChannel(socket_); }
  std::shared_ptr<grpc::Channel> NewChannel(const std::string& address) const;
  void Signal(int signal) const { process_->Signal(signal); }
  pid_t pid() const { return process_->pid(); }
  /// The exit code, or minus the signal that ended it.
  int Wait() { return process_->Wait(); }
  int64_t ResidentBytes() const { return process_->ResidentBytes(); }
  /// The body of GET `path` on the HTTP port.
  std::string HttpGet(const std::string& path) const;
  const std::string& ready_line() const { return ready_line_; }

 private:
  // "name=value" of the ready line.
  std::string ReadyField(const std::string& name) const;

  std::string socket_;
  std::string ready_line_;
  std::unique_ptr<ChildProcess> process_;
};

/// The value of an unlabelled metric, or -1.
double MetricValue(const std::string& text, const std::string& name);

/// A file below tests/golden/data/tiny-llama.
std::string TinyModelPath(const std::string& path);
std::string ReadFile(const std::string& path);

}  // namespace tenon

#endif  // TENON_TESTS_INTEGRATION_SERVER_PROCESS_H_
