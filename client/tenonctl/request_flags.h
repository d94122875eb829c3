// The flags of `tenonctl generate` and `chat` that become fields of a GenerateRequest.
#ifndef TENON_CLIENT_TENONCTL_REQUEST_FLAGS_H_
#define TENON_CLIENT_TENONCTL_REQUEST_FLAGS_H_

#include <span>

#include "absl/status/statusor.h"
#include "client/tenonctl/arguments.h"
#include "tenon/v1/generation.pb.h"

namespace tenon {

/// Adapter, sampling and stopping.
std::span<const FlagSpec> RequestFlags();

/// What only `generate` takes: samples, log-probabilities and token ids.
std::span<const FlagSpec> OutputFlags();

/// A request without input. Fields without a flag stay unset, so that the server's defaults hold;
/// ranges are the server's to check. INVALID_ARGUMENT for a value of another type.
absl::StatusOr<v1::GenerateRequest> RequestFromFlags(const Arguments& arguments);

}  // namespace tenon

#endif  // TENON_CLIENT_TENONCTL_REQUEST_FLAGS_H_
