// The one place where absl::Status becomes grpc::Status with google.rpc error details.
#ifndef TENON_SERVER_RPC_STATUS_CONVERSION_H_
#define TENON_SERVER_RPC_STATUS_CONVERSION_H_

#include <grpcpp/support/status.h>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace tenon {

/// ErrorInfo.domain of every error.
inline constexpr absl::string_view kErrorDomain = "tenon.dev";

/// Longest message and subject that travel; what is longer is cut and ends in "...". Both go into
/// HTTP/2 trailers, whose size clients limit (8 KiB in gRPC).
inline constexpr size_t kMaxErrorTextBytes = 512;

/// Same code and message, and in grpc-status-details-bin a google.rpc.Status with an ErrorInfo and,
/// by the ErrorDetail that the status carries, one of BadRequest, ResourceInfo, QuotaFailure (with
/// RetryInfo when a retry time is known), PreconditionFailure or RetryInfo.
///
/// Text that is not UTF-8 has its bad bytes replaced. INTERNAL and UNKNOWN say nothing of the cause
/// to clients: the caller logs it, and the message that travels names `request_id` only.
grpc::Status ToGrpcStatus(const absl::Status& status, absl::string_view request_id = "");

}  // namespace tenon

#endif  // TENON_SERVER_RPC_STATUS_CONVERSION_H_
