// Probes and reports of adapters.proto <-> what the engine runs and finds.
#ifndef TENON_SERVER_RPC_ACCEPTANCE_CONVERSION_H_
#define TENON_SERVER_RPC_ACCEPTANCE_CONVERSION_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "google/protobuf/timestamp.pb.h"
#include "server/engine/acceptance.h"
#include "server/rpc/request_validation.h"
#include "server/tokenizer/tokenizer.h"
#include "tenon/v1/adapters.pb.h"

namespace tenon {

inline constexpr int kMaxProbes = 32;
inline constexpr int kMaxProbeNameBytes = 64;
inline constexpr int kMaxExpectedTokens = 256;
inline constexpr int kMaxExpectedTextBytes = 1024;

/// The forward pass, then the header's probes, tokenized. INVALID_ARGUMENT, naming the field by its
/// path ("header.probes[2].max_loss.loss"), for a bound that is broken or a probe that does not fit
/// the context. `num_virtual_tokens` of the adapter count in it.
absl::StatusOr<std::vector<AcceptanceProbe>> ToProbes(const v1::UploadHeader& header,
                                                      const RequestLimits& limits,
                                                      const Tokenizer& tokenizer,
                                                      int64_t num_virtual_tokens);

/// What ToProbes would refuse without asking the tokenizer: names, counts and ranges.
absl::Status ValidateProbes(const v1::UploadHeader& header, const RequestLimits& limits);

v1::AcceptanceReport ToProto(const AcceptanceReport& report);

/// OK when the report passed. FAILED_PRECONDITION (reason ACCEPTANCE_FAILED), naming the probes
/// that failed and how, otherwise.
absl::Status AcceptanceError(absl::string_view adapter, const AcceptanceReport& report);

/// As the catalogue keeps it: JSON. What is none reads as an empty report.
std::string ToCatalogue(const v1::AcceptanceReport& report);
v1::AcceptanceReport FromCatalogue(const std::string& json);

google::protobuf::Timestamp ToTimestamp(absl::Time time);

}  // namespace tenon

#endif  // TENON_SERVER_RPC_ACCEPTANCE_CONVERSION_H_
