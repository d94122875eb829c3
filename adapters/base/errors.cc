#include "adapters/base/errors.h"

#include <vector>

#include "absl/strings/cord.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace tenon {
namespace {

// The payload is four lines: kind, retry_after in ms, reason, subject. A subject may itself hold
// newlines (it can echo a client's string), so it comes last and takes the rest.
constexpr absl::string_view kDetailUrl = "type.tenon.dev/tenon.ErrorDetail";

absl::Status WithDetail(absl::StatusCode code, absl::string_view message, ErrorDetail::Kind kind,
                        absl::string_view reason, absl::string_view subject,
                        absl::Duration retry_after = absl::ZeroDuration()) {
  absl::Status status(code, message);
  status.SetPayload(kDetailUrl, absl::Cord(absl::StrCat(static_cast<int>(kind), "\n",
                                                        absl::ToInt64Milliseconds(retry_after),
                                                        "\n", reason, "\n", subject)));
  return status;
}

}  // namespace

absl::Status InvalidFieldError(absl::string_view field, absl::string_view message) {
  return WithDetail(absl::StatusCode::kInvalidArgument, absl::StrCat(field, ": ", message),
                    ErrorDetail::Kind::kField, "INVALID_FIELD", field);
}

absl::Status InvalidAdapterError(absl::string_view reason, absl::string_view subject,
                                 absl::string_view message) {
  return WithDetail(absl::StatusCode::kInvalidArgument, message, ErrorDetail::Kind::kField, reason,
                    subject);
}

absl::Status ResourceNotFoundError(absl::string_view reason, absl::string_view subject,
                                   absl::string_view message) {
  return WithDetail(absl::StatusCode::kNotFound, message, ErrorDetail::Kind::kResource, reason,
                    subject);
}

absl::Status ResourceConflictError(absl::StatusCode code, absl::string_view reason,
                                   absl::string_view subject, absl::string_view message) {
  return WithDetail(code, message, ErrorDetail::Kind::kResource, reason, subject);
}

absl::Status QuotaExceededError(absl::string_view reason, absl::string_view subject,
                                absl::string_view message, absl::Duration retry_after) {
  return WithDetail(absl::StatusCode::kResourceExhausted, message, ErrorDetail::Kind::kQuota,
                    reason, subject, retry_after);
}

absl::Status PreconditionError(absl::string_view reason, absl::string_view subject,
                               absl::string_view message) {
  return WithDetail(absl::StatusCode::kFailedPrecondition, message,
                    ErrorDetail::Kind::kPrecondition, reason, subject);
}

absl::Status RetryLaterError(absl::string_view reason, absl::string_view message,
                             absl::Duration retry_after) {
  return WithDetail(absl::StatusCode::kUnavailable, message, ErrorDetail::Kind::kRetry, reason, "",
                    retry_after);
}

absl::Status UnauthenticatedError(absl::string_view reason, absl::string_view message) {
  return WithDetail(absl::StatusCode::kUnauthenticated, message, ErrorDetail::Kind::kIdentity,
                    reason, "");
}

absl::Status PermissionDeniedError(absl::string_view reason, absl::string_view message) {
  return WithDetail(absl::StatusCode::kPermissionDenied, message, ErrorDetail::Kind::kIdentity,
                    reason, "");
}

std::optional<ErrorDetail> GetErrorDetail(const absl::Status& status) {
  const absl::optional<absl::Cord> payload = status.GetPayload(kDetailUrl);
  if (!payload.has_value()) {
    return std::nullopt;
  }
  const std::vector<std::string> lines =
      absl::StrSplit(std::string(*payload), absl::MaxSplits('\n', 3));
  int kind = 0;
  int64_t retry_after_ms = 0;
  if (lines.size() != 4 || !absl::SimpleAtoi(lines[0], &kind) ||
      !absl::SimpleAtoi(lines[1], &retry_after_ms)) {
    return std::nullopt;
  }
  return ErrorDetail{static_cast<ErrorDetail::Kind>(kind), lines[2], lines[3],
                     absl::Milliseconds(retry_after_ms)};
}

std::string Quoted(absl::string_view text) {
  constexpr size_t kMaxBytes = 120;
  if (text.size() <= kMaxBytes) {
    return absl::StrCat("\"", absl::CHexEscape(text), "\"");
  }
  return absl::StrCat("\"", absl::CHexEscape(text.substr(0, kMaxBytes)), "...\" (", text.size(),
                      " bytes)");
}

absl::Status Annotate(const absl::Status& status, absl::string_view context) {
  if (status.ok()) {
    return status;
  }
  absl::Status annotated(status.code(), absl::StrCat(context, ": ", status.message()));
  status.ForEachPayload([&](absl::string_view url, const absl::Cord& payload) {
    annotated.SetPayload(url, payload);
  });
  return annotated;
}

}  // namespace tenon
