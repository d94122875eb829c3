// Turns what gRPC reports into absl::Status, with the server's error details in words.
#ifndef TENON_CLIENT_CPP_CLIENT_STATUS_H_
#define TENON_CLIENT_CPP_CLIENT_STATUS_H_

#include <grpcpp/support/status.h>

#include "absl/status/status.h"

namespace tenon {

/// Same code; the message, and in brackets what google.rpc details add: reason, field, resource,
/// quota, retry time.
absl::Status FromGrpcStatus(const grpc::Status& status);

}  // namespace tenon

#endif  // TENON_CLIENT_CPP_CLIENT_STATUS_H_
