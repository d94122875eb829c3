// Requests of generation.proto -> TextRequest: every bound that the proto documents, in one pure
// place.
#ifndef TENON_SERVER_RPC_REQUEST_VALIDATION_H_
#define TENON_SERVER_RPC_REQUEST_VALIDATION_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/engine/text_request.h"
#include "tenon/v1/generation.pb.h"

namespace tenon {

/// The model's own sampling defaults: what generation_config.json says, else the API's.
struct SamplingDefaults {
  float temperature = 1.0f;
  int32_t top_k = 0;
  float top_p = 1.0f;
  float min_p = 0.0f;
  float repetition_penalty = 1.0f;
  /// The model's own end tokens.
  std::vector<int32_t> eos_token_ids;
};

/// What requests are checked against.
struct RequestLimits {
  int32_t vocab_size = 0;
  int32_t max_context_tokens = 0;
  /// Text of prompt, chat or Tokenize input at most. Bounds the time of tokenization, whose worst
  /// case is one endless word.
  int64_t max_text_bytes = int64_t{1} << 20;
  SamplingDefaults defaults;
  bool batch_invariant = true;        ///< whether GenerateRequest.deterministic can be promised
  bool always_deterministic = false;  ///< as if every request asked for it
};

inline constexpr int kMaxRequestIdBytes = 128;
inline constexpr int kMaxRoutingKeyBytes = 256;
inline constexpr int kMaxSamples = 16;
inline constexpr int kMaxAdapters = 8;
inline constexpr float kMaxAdapterWeight = 8.0f;
inline constexpr int kMaxStopStrings = 16;
inline constexpr int kMaxStopStringBytes = 256;
inline constexpr int kMaxStopTokens = 64;
inline constexpr int kMaxLogitBiasEntries = 1024;
inline constexpr int kMaxLogprobs = 20;
inline constexpr int kMaxChatMessages = 1024;
inline constexpr int kMaxRoleBytes = 64;

/// The request as the engine understands it. `drawn_seed` is used when the client gave none.
/// `request_id` is the request's own, checked by ValidateRequestId, or a drawn one.
/// INVALID_ARGUMENT, naming the field by its path, for the first bound that is broken.
/// FAILED_PRECONDITION (NOT_DETERMINISTIC) for a promise that cannot be given.
absl::StatusOr<TextRequest> ToTextRequest(const v1::GenerateRequest& request,
                                          const RequestLimits& limits, uint64_t drawn_seed);

/// At most 128 bytes of printable ASCII without spaces; empty is fine.
absl::Status ValidateRequestId(absl::string_view request_id);

/// At least one message, roles and content within limits.
absl::StatusOr<ChatPrompt> ToChatPrompt(const v1::ChatInput& chat, const RequestLimits& limits);

/// Text within max_text_bytes.
absl::Status ValidateText(absl::string_view field, absl::string_view text,
                          const RequestLimits& limits);

/// Each id in [0, vocabulary), and at most `max_ids` of them.
absl::Status ValidateTokenIds(absl::string_view field,
                              const google::protobuf::RepeatedField<int32_t>& ids, int64_t max_ids,
                              const RequestLimits& limits);

}  // namespace tenon

#endif  // TENON_SERVER_RPC_REQUEST_VALIDATION_H_
