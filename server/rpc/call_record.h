// CallRecord: what every call owes when it ends: a metric, a log line, a status.
#ifndef TENON_SERVER_RPC_CALL_RECORD_H_
#define TENON_SERVER_RPC_CALL_RECORD_H_

#include <grpcpp/support/status.h>

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "server/telemetry/metrics.h"

namespace tenon {

/// What calls share with the process. Thread-safe parts only; all pointers are borrowed.
struct CallEnvironment {
  ServerMetrics* metrics = nullptr;
  std::function<absl::Time()> clock;
  std::function<uint64_t()> draw;  ///< random bits, for seeds and request ids
  std::string tenant;              ///< whose calls these are
};

/// One call from its arrival to its end. Not thread-safe: moves with the call from thread to
/// thread.
class CallRecord {
 public:
  /// `environment` is borrowed and outlives the record.
  CallRecord(const CallEnvironment* environment, absl::string_view method);

  /// The client's id, or a drawn one when that is empty.
  void set_request_id(absl::string_view request_id);
  const std::string& request_id() const { return request_id_; }
  const CallEnvironment& environment() const { return *environment_; }
  const std::string& tenant() const { return environment_->tenant; }

  /// Adds to the log line. Never a prompt, an answer or a credential.
  void Note(absl::string_view key, std::string value) {
    notes_.emplace_back(key, std::move(value));
  }

  /// Counts the call, writes its line (warnings for the server's own errors) and gives what the
  /// client gets. Called once.
  grpc::Status End(const absl::Status& status);

  absl::Duration elapsed() const { return environment_->clock() - arrival_; }

 private:
  const CallEnvironment* environment_;
  std::string method_;
  std::string request_id_;
  absl::Time arrival_;
  std::vector<std::pair<std::string, std::string>> notes_;
};

/// A status code's name in lower case: "ok", "invalid_argument".
std::string OutcomeName(absl::StatusCode code);

}  // namespace tenon

#endif  // TENON_SERVER_RPC_CALL_RECORD_H_
