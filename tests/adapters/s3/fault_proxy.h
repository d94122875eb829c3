// FaultProxy: a TCP proxy in front of a real server, that fails the way networks and servers do.
#ifndef TENON_TESTS_ADAPTERS_S3_FAULT_PROXY_H_
#define TENON_TESTS_ADAPTERS_S3_FAULT_PROXY_H_

#include <atomic>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace tenon {

/// Passes connections to a port of this machine on. The fault holds for every answer that begins
/// after it was set. Thread-safe.
class FaultProxy {
 public:
  enum class Fault {
    kNone,
    kDown,     ///< connections are closed at once
    kStalled,  ///< requests are taken and not answered
    kBusy,     ///< every request is answered 503 SlowDown
    kTorn,     ///< an answer breaks off in the middle of its body
    kCorrupt,  ///< one byte in an answer's body is another
    kSlow,     ///< an answer comes a byte each 10 ms
  };

  explicit FaultProxy(int server_port);
  ~FaultProxy();
  FaultProxy(const FaultProxy&) = delete;
  FaultProxy& operator=(const FaultProxy&) = delete;

  int port() const { return port_; }
  void Set(Fault fault) { fault_ = fault; }
  /// Holds for requests whose first line has this text only; "" for all.
  void SetOnly(std::string text) ABSL_LOCKS_EXCLUDED(mutex_);
  /// Requests so far whose first line has this text.
  int CountOf(const std::string& text) const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  void Accept();
  void Serve(int client);
  bool Answer(int client, int server, const std::string& request_line);
  Fault FaultFor(const std::string& request_line) ABSL_LOCKS_EXCLUDED(mutex_);

  const int server_port_;
  int listener_ = -1;
  int port_ = 0;
  std::atomic<Fault> fault_ = Fault::kNone;
  std::atomic<bool> stop_ = false;
  mutable absl::Mutex mutex_;
  std::string only_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> request_lines_ ABSL_GUARDED_BY(mutex_);
  std::vector<int> clients_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::thread> threads_ ABSL_GUARDED_BY(mutex_);
  std::thread acceptor_;
};

}  // namespace tenon

#endif  // TENON_TESTS_ADAPTERS_S3_FAULT_PROXY_H_
