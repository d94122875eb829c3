#include "server/rpc/call_record.h"

#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "adapters/base/errors.h"
#include "server/rpc/status_conversion.h"
#include "server/telemetry/logging.h"

namespace tenon {
namespace {

// Errors that somebody who runs the server has to look at.
bool IsServersFault(absl::StatusCode code) {
  return code == absl::StatusCode::kInternal || code == absl::StatusCode::kUnknown ||
         code == absl::StatusCode::kDataLoss;
}

absl::string_view View(grpc::string_ref text) { return {text.data(), text.size()}; }

std::vector<absl::string_view> Metadata(const grpc::CallbackServerContext& context,
                                        const char* key) {
  std::vector<absl::string_view> values;
  const auto [begin, end] = context.client_metadata().equal_range(key);
  for (auto value = begin; value != end; ++value) {
    values.push_back(View(value->second));
  }
  return values;
}

CallerEvidence EvidenceOf(const grpc::CallbackServerContext& context,
                          const TrustedProxies& proxies) {
  const std::vector<absl::string_view> forwarded_for = Metadata(context, "x-forwarded-for");
  const std::string peer = context.peer();
  CallerEvidence evidence;
  evidence.peer = proxies.CallerOf(peer, forwarded_for);
  evidence.forwarded = !forwarded_for.empty() && evidence.peer == peer;
  evidence.authorization = Metadata(context, "authorization");
  const std::shared_ptr<const grpc::AuthContext> auth = context.auth_context();
  if (auth != nullptr && auth->IsPeerAuthenticated()) {
    for (const grpc::string_ref& id : auth->FindPropertyValues("peer_spiffe_id")) {
      evidence.certificate.spiffe_ids.emplace_back(View(id));
    }
    for (const grpc::string_ref& subject : auth->FindPropertyValues("x509_subject")) {
      evidence.certificate.subject = std::string(View(subject));
    }
  }
  return evidence;
}

}  // namespace

void AuditChange(TenantDirectory& directory, const CallRecord& record, absl::string_view object,
                 const absl::Status& outcome) {
  const absl::Status audited =
      directory.Audit(record.audit_source(), record.tenant(), object, OutcomeName(outcome.code()));
  if (!audited.ok()) {
    LogLine(LogLevel::kError, "audit_failed").Add("error", audited);
  }
}

std::string OutcomeName(absl::StatusCode code) {
  return absl::AsciiStrToLower(absl::StatusCodeToString(code));
}

CallRecord::CallRecord(const CallEnvironment* environment,
                       const grpc::CallbackServerContext& context, absl::string_view method)
    : environment_(environment), method_(method), arrival_(environment->clock()) {
  const CallerEvidence evidence = EvidenceOf(context, environment->proxies);
  peer_ = evidence.peer;
  absl::StatusOr<Identity> identity = environment->authenticator->Admit(method, evidence);
  admission_ = identity.status();
  if (identity.ok()) {
    identity_ = *std::move(identity);
  } else {
    const std::optional<ErrorDetail> detail = GetErrorDetail(admission_);
    environment->metrics->RecordRefusal(detail.has_value() ? detail->reason : "");
  }
}

void CallRecord::set_request_id(absl::string_view request_id) {
  request_id_ =
      request_id.empty() ? absl::StrFormat("%016x", environment_->draw()) : std::string(request_id);
}

grpc::Status CallRecord::End(const absl::Status& outcome) {
  const absl::Status& status = admission_.ok() ? outcome : admission_;
  environment_->metrics->RecordCall(method_, OutcomeName(status.code()));
  LogLine line(IsServersFault(status.code()) ? LogLevel::kWarning : LogLevel::kInfo, "call");
  line.Add("method", absl::string_view(method_)).Add("tenant", absl::string_view(tenant()));
  if (!identity_.credential.empty()) {
    line.Add("credential", absl::string_view(identity_.credential));
  }
  line.Add("peer", absl::string_view(peer_));
  if (!request_id_.empty()) {
    line.Add("request_id", absl::string_view(request_id_));
  }
  for (const auto& [key, value] : notes_) {
    line.Add(key, absl::string_view(value));
  }
  line.Add("elapsed_ms", absl::ToDoubleMilliseconds(elapsed()));
  line.Add("outcome", absl::string_view(OutcomeName(status.code())));
  if (!status.ok()) {
    line.Add("error", status.message());
  }
  return ToGrpcStatus(status, request_id_);
}

}  // namespace tenon
