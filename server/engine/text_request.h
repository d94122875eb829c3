// TextRequest: one generation request, validated, and free of the protocol that it came by.
#ifndef TENON_SERVER_ENGINE_TEXT_REQUEST_H_
#define TENON_SERVER_ENGINE_TEXT_REQUEST_H_

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "absl/time/time.h"
#include "adapters/registry/adapter_id.h"
#include "server/scheduler/fair_share.h"
#include "server/scheduler/sampling_params.h"
#include "server/tokenizer/tokenizer.h"

namespace tenon {

/// A conversation, to be rendered with the model's chat template.
struct ChatPrompt {
  std::vector<ChatTurn> turns;
  bool add_generation_prompt = true;
};

/// An adapter that a request names.
struct RequestedAdapter {
  AdapterRef ref;
  std::string owner;  ///< of an adapter that another tenant shares; empty: the request's tenant
  float weight = 1.0f;
  std::string field;  ///< where the request says so, "adapters[2]", for errors

  /// "name@version" or "owner/name@version".
  std::string ToString() const {
    return owner.empty() ? ref.ToString() : owner + "/" + ref.ToString();
  }
};

/// What a request says, with every bound checked and every default filled in. What depends on the
/// tokenized prompt (its length against the context, the default of max_tokens) is settled when it
/// starts.
struct TextRequest {
  std::string request_id;
  std::string tenant;
  /// Plain text, a conversation, or token ids taken as they are.
  std::variant<std::string, ChatPrompt, std::vector<int32_t>> input;
  std::vector<RequestedAdapter> adapters;  ///< none: the base model
  /// Chooses a side of a split adapter; empty: request_id does.
  std::string routing_key;
  /// max_tokens of 0 stands for the default: 256, or what the context leaves when that is less.
  SamplingParams sampling;
  int32_t num_samples = 1;
  std::vector<std::string> stop;
  bool include_stop = false;
  absl::Time deadline = absl::InfiniteFuture();
  int32_t priority = 0;    ///< within the tenant
  TenantShare share = {};  ///< the tenant's
  bool deterministic = false;
};

}  // namespace tenon

#endif  // TENON_SERVER_ENGINE_TEXT_REQUEST_H_
