// CallRecord: what every call owes when it ends: a metric, a log line, a status.
#ifndef TENON_SERVER_RPC_CALL_RECORD_H_
#define TENON_SERVER_RPC_CALL_RECORD_H_

#include <grpcpp/server_context.h>
#include <grpcpp/support/status.h>

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "server/telemetry/metrics.h"
#include "server/tenant/authenticator.h"
#include "server/tenant/quota_book.h"
#include "server/tenant/tenant_directory.h"
#include "server/tenant/trusted_proxies.h"
#include "server/tenant/usage_ledger.h"

namespace tenon {

/// What calls share with the process. Thread-safe parts only; all pointers are borrowed.
struct CallEnvironment {
  ServerMetrics* metrics = nullptr;
  std::function<absl::Time()> clock;
  std::function<uint64_t()> draw;  ///< random bits, for seeds and request ids
  const Authenticator* authenticator = nullptr;
  TrustedProxies proxies;  ///< whose word on a caller's address counts
  QuotaBook* quotas = nullptr;
  UsageLedger* usage = nullptr;
  const TenantDirectory* directory = nullptr;  ///< who shares adapters with whom
};

/// One call from its arrival to its end: who calls is settled first, by the policy of its method. A
/// call that is not admitted acts for the tenant "", which owns nothing and may own nothing, and
/// ends with the reason, whatever its service makes of it.
///
/// Not thread-safe: moves with the call from thread to thread.
class CallRecord {
 public:
  /// `environment` is borrowed and outlives the record. `method` is a name of FindMethodPolicy.
  CallRecord(const CallEnvironment* environment, const grpc::CallbackServerContext& context,
             absl::string_view method);

  /// OK when the caller may do this. A service asks before it does anything for him.
  const absl::Status& admission() const { return admission_; }
  const Identity& identity() const { return identity_; }
  /// His address, as gRPC writes it or as a trusted proxy names it.
  const std::string& peer() const { return peer_; }

  /// The client's id, or a drawn one when that is empty.
  void set_request_id(absl::string_view request_id);
  const std::string& request_id() const { return request_id_; }
  const CallEnvironment& environment() const { return *environment_; }
  const std::string& tenant() const { return identity_.tenant; }

  /// Adds to the log line. Never a prompt, an answer or a credential.
  void Note(absl::string_view key, std::string value) {
    notes_.emplace_back(key, std::move(value));
  }

  /// Who asks, for the audit entry of a change that writes its own.
  AuditSource audit_source() const { return {identity_.credential, peer_, method_}; }

  /// Counts the call, writes its line (warnings for the server's own errors) and gives what the
  /// client gets. Called once.
  grpc::Status End(const absl::Status& outcome);

  absl::Duration elapsed() const { return environment_->clock() - arrival_; }

 private:
  const CallEnvironment* environment_;
  std::string method_;
  std::string peer_;
  Identity identity_;
  absl::Status admission_;
  std::string request_id_;
  absl::Time arrival_;
  std::vector<std::pair<std::string, std::string>> notes_;
};

/// Writes a change that was made or tried into the tenants' audit log; does I/O. A log that cannot
/// be written is logged as an error; the change stands.
void AuditChange(TenantDirectory& directory, const CallRecord& record, absl::string_view object,
                 const absl::Status& outcome);

/// A status code's name in lower case: "ok", "invalid_argument".
std::string OutcomeName(absl::StatusCode code);

}  // namespace tenon

#endif  // TENON_SERVER_RPC_CALL_RECORD_H_
