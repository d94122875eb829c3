// tenon-server: reads the configuration, runs the App until a signal.

#include <sys/resource.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "server/app.h"
#include "server/server_flags.h"
#include "server/telemetry/logging.h"
#include "server/version.h"

namespace tenon {
namespace {

// Turns signals into one notification. Made before any other thread, so that all of them inherit
// the mask and signals come here alone.
//
// SIGTERM or SIGINT: stop. Before SetServing, when there is nothing to drain, and for the second
// time: the process ends at once, which the store is made to survive.
class SignalWatcher {
 public:
  SignalWatcher() {
    sigemptyset(&signals_);
    for (const int signal : {SIGTERM, SIGINT, kQuit}) {
      sigaddset(&signals_, signal);
    }
    pthread_sigmask(SIG_BLOCK, &signals_, nullptr);
    std::signal(SIGPIPE, SIG_IGN);
    thread_ = std::thread([this] { Watch(); });
  }
  ~SignalWatcher() {
    pthread_kill(thread_.native_handle(), kQuit);
    thread_.join();
  }
  SignalWatcher(const SignalWatcher&) = delete;
  SignalWatcher& operator=(const SignalWatcher&) = delete;

  void SetServing() { serving_ = true; }
  void AwaitStop() { stop_.WaitForNotification(); }

 private:
  static constexpr int kQuit = SIGUSR2;  // from the destructor

  void Watch() {
    int signal = 0;
    while (sigwait(&signals_, &signal) == 0 && signal != kQuit) {
      if (!serving_ || stop_.HasBeenNotified()) {
        LogLine(LogLevel::kWarning, "stopped_at_once").Add("signal", signal);
        std::_Exit(serving_ ? EXIT_FAILURE : EXIT_SUCCESS);
      }
      LogLine(LogLevel::kInfo, "stopping").Add("signal", signal);
      stop_.Notify();
    }
  }

  sigset_t signals_;
  std::atomic<bool> serving_ = false;
  absl::Notification stop_;
  std::thread thread_;
};

// A connection is a descriptor, and gRPC 1.51 does not survive well without one to accept with
// (CVE-2023-4785): take as many as the system gives.
void RaiseDescriptorLimit() {
  rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0) {
      LogLine(LogLevel::kWarning, "descriptor_limit_kept");
    }
  }
}

int Run(const ServerConfig& config) {
  RaiseDescriptorLimit();
  SignalWatcher signals;
  const absl::Time begin = absl::Now();
  absl::StatusOr<std::unique_ptr<App>> app = App::Start(config);
  if (!app.ok()) {
    LogLine(LogLevel::kError, "start_failed").Add("error", app.status());
    return EXIT_FAILURE;
  }
  signals.SetServing();
  std::printf("tenon-server %s ready: grpc=%s http=%s admin=%s after %.1f s\n", kVersion,
              (*app)->rpc_address().c_str(), (*app)->http_address().c_str(),
              (*app)->admin_address().c_str(), absl::ToDoubleSeconds(absl::Now() - begin));
  std::fflush(stdout);
  signals.AwaitStop();
  (*app)->Drain(absl::Now() + config.drain_timeout);
  LogLine(LogLevel::kInfo, "stopped");
  return EXIT_SUCCESS;
}

}  // namespace
}  // namespace tenon

int main(int argc, char** argv) {
  const absl::StatusOr<tenon::ServerConfig> config =
      tenon::ReadServerConfig(argc, argv, [](const char* name) { return std::getenv(name); });
  if (!config.ok()) {
    std::fprintf(stderr, "tenon-server: %s\n", std::string(config.status().message()).c_str());
    return 2;
  }
  if (config->print_config) {
    std::fputs(tenon::PrintServerConfig().c_str(), stdout);
    return EXIT_SUCCESS;
  }
  return tenon::Run(*config);
}
