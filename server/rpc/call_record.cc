#include "server/rpc/call_record.h"

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/rpc/status_conversion.h"
#include "server/telemetry/logging.h"

namespace tenon {
namespace {

// Errors that somebody who runs the server has to look at.
bool IsServersFault(absl::StatusCode code) {
  return code == absl::StatusCode::kInternal || code == absl::StatusCode::kUnknown ||
         code == absl::StatusCode::kDataLoss;
}

}  // namespace

std::string OutcomeName(absl::StatusCode code) {
  return absl::AsciiStrToLower(absl::StatusCodeToString(code));
}

CallRecord::CallRecord(const CallEnvironment* environment, absl::string_view method)
    : environment_(environment), method_(method), arrival_(environment->clock()) {}

void CallRecord::set_request_id(absl::string_view request_id) {
  request_id_ =
      request_id.empty() ? absl::StrFormat("%016x", environment_->draw()) : std::string(request_id);
}

grpc::Status CallRecord::End(const absl::Status& status) {
  environment_->metrics->RecordCall(method_, OutcomeName(status.code()));
  LogLine line(IsServersFault(status.code()) ? LogLevel::kWarning : LogLevel::kInfo, "call");
  line.Add("method", absl::string_view(method_)).Add("tenant", absl::string_view(tenant()));
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
