// One unary call with a Client's options. Internal to client/cpp.
#ifndef TENON_CLIENT_CPP_CALL_H_
#define TENON_CLIENT_CPP_CALL_H_

#include <grpcpp/client_context.h>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/cpp/client_options.h"
#include "client/cpp/client_status.h"

namespace tenon {

/// Deadline and credentials.
inline void Prepare(const ClientOptions& options, grpc::ClientContext& context) {
  if (options.timeout != absl::InfiniteDuration()) {
    context.set_deadline(absl::ToChronoTime(absl::Now() + options.timeout));
  }
  if (!options.api_key.empty()) {
    context.AddMetadata("authorization", absl::StrCat("Bearer ", options.api_key));
  }
}

/// `method` is a stub's member function.
template <typename Response, typename Stub, typename Request>
absl::StatusOr<Response> Call(const ClientOptions& options, Stub& stub,
                              grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&,
                                                           Response*),
                              const Request& request) {
  grpc::ClientContext context;
  Prepare(options, context);
  Response response;
  const absl::Status status = FromGrpcStatus((stub.*method)(&context, request, &response));
  if (!status.ok()) {
    return status;
  }
  return response;
}

}  // namespace tenon

#endif  // TENON_CLIENT_CPP_CALL_H_
