// Errors that carry what a client can act on. Every layer below rpc/ returns plain absl::Status;
// these constructors attach one ErrorDetail to it, which rpc/ turns into google.rpc error details.
#ifndef TENON_ADAPTERS_BASE_ERRORS_H_
#define TENON_ADAPTERS_BASE_ERRORS_H_

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace tenon {

/// The machine-readable part of an error.
struct ErrorDetail {
  enum class Kind {
    kField,     ///< a field of the request is wrong: google.rpc.BadRequest
    kResource,  ///< a named resource is missing or taken: google.rpc.ResourceInfo
    kQuota,     ///< a limit is reached: google.rpc.QuotaFailure, and RetryInfo when retry_after > 0
    kPrecondition,  ///< the request does not fit the server's state or base model:
                    ///< PreconditionFailure
    kRetry,         ///< try again later: google.rpc.RetryInfo
    kIdentity,      ///< who calls is not known or not allowed: ErrorInfo alone says why
  };
  Kind kind = Kind::kField;
  std::string reason;   ///< google.rpc.ErrorInfo.reason, UPPER_SNAKE_CASE, e.g. "ADAPTER_NOT_FOUND"
  std::string subject;  ///< field path, resource name, quota subject or precondition subject
  absl::Duration retry_after = absl::ZeroDuration();
};

/// INVALID_ARGUMENT: `field` (a proto path such as "sampling.top_p") has a value that cannot be
/// served.
absl::Status InvalidFieldError(absl::string_view field, absl::string_view message);

/// INVALID_ARGUMENT: an uploaded file is malformed. `reason` names the rule, `subject` the file or
/// tensor.
absl::Status InvalidAdapterError(absl::string_view reason, absl::string_view subject,
                                 absl::string_view message);

/// NOT_FOUND: no such resource, for example reason "ADAPTER_NOT_FOUND", subject "fr@3".
absl::Status ResourceNotFoundError(absl::string_view reason, absl::string_view subject,
                                   absl::string_view message);

/// ALREADY_EXISTS or ABORTED style conflicts on a named resource.
absl::Status ResourceConflictError(absl::StatusCode code, absl::string_view reason,
                                   absl::string_view subject, absl::string_view message);

/// RESOURCE_EXHAUSTED: a limit named `subject` is reached. retry_after of zero means that waiting
/// does not help.
absl::Status QuotaExceededError(absl::string_view reason, absl::string_view subject,
                                absl::string_view message,
                                absl::Duration retry_after = absl::ZeroDuration());

/// FAILED_PRECONDITION: valid by itself, but not against this base model or server state.
absl::Status PreconditionError(absl::string_view reason, absl::string_view subject,
                               absl::string_view message);

/// UNAVAILABLE: loading or draining; the client may retry after `retry_after`.
absl::Status RetryLaterError(absl::string_view reason, absl::string_view message,
                             absl::Duration retry_after);

/// UNAUTHENTICATED: who calls is not known, for example reason "CREDENTIALS_MISSING".
absl::Status UnauthenticatedError(absl::string_view reason, absl::string_view message);

/// PERMISSION_DENIED: who calls is known, and may not do this.
absl::Status PermissionDeniedError(absl::string_view reason, absl::string_view message);

/// The detail that one of the constructors above attached, if any.
std::optional<ErrorDetail> GetErrorDetail(const absl::Status& status);

/// `text` in double quotes for a message or a log line: bytes other than printable ASCII escaped,
/// cut after 120 bytes. For every string that a client wrote.
std::string Quoted(absl::string_view text);

/// Same code and detail, message prefixed with "context: ". OK stays OK.
absl::Status Annotate(const absl::Status& status, absl::string_view context);

}  // namespace tenon

#endif  // TENON_ADAPTERS_BASE_ERRORS_H_
