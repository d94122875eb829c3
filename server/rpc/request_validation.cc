#include "server/rpc/request_validation.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"
#include "adapters/registry/adapter_owner.h"

namespace tenon {
namespace {

// Whether a lower bound belongs to the range.
enum class Lower { kClosed, kOpen };

// NaN compares false with everything, so that the condition is what must hold, not what must not.
absl::Status CheckRange(absl::string_view field, double value, double low, double high,
                        Lower lower = Lower::kClosed) {
  const bool above = lower == Lower::kClosed ? value >= low : value > low;
  if (above && value <= high) {
    return absl::OkStatus();
  }
  return InvalidFieldError(
      field, absl::StrCat(value, " is not in ", lower == Lower::kClosed ? "[" : "(", low, ", ",
                          high, "]"));
}

absl::Status CheckCount(absl::string_view field, int64_t count, int64_t max,
                        absl::string_view noun) {
  if (count <= max) {
    return absl::OkStatus();
  }
  return InvalidFieldError(field, absl::StrCat(count, " ", noun, " exceed the limit of ", max));
}

absl::Status CheckTokenId(absl::string_view field, int64_t id, const RequestLimits& limits) {
  if (id >= 0 && id < limits.vocab_size) {
    return absl::OkStatus();
  }
  return InvalidFieldError(field,
                           absl::StrCat("token ", id, " is not in [0, ", limits.vocab_size, ")"));
}

absl::Status ReadInput(const v1::GenerateRequest& request, const RequestLimits& limits,
                       TextRequest& out) {
  switch (request.input_case()) {
    case v1::GenerateRequest::kPrompt:
      if (request.prompt().empty()) {
        return InvalidFieldError("prompt", "must not be empty");
      }
      TENON_RETURN_IF_ERROR(ValidateText("prompt", request.prompt(), limits));
      out.input = request.prompt();
      return absl::OkStatus();
    case v1::GenerateRequest::kChat: {
      TENON_ASSIGN_OR_RETURN(out.input, ToChatPrompt(request.chat(), limits));
      return absl::OkStatus();
    }
    case v1::GenerateRequest::kTokens: {
      const auto& ids = request.tokens().ids();
      if (ids.empty()) {
        return InvalidFieldError("tokens.ids", "must not be empty");
      }
      TENON_RETURN_IF_ERROR(ValidateTokenIds("tokens.ids", ids, limits.max_context_tokens, limits));
      out.input = std::vector<int32_t>(ids.begin(), ids.end());
      return absl::OkStatus();
    }
    case v1::GenerateRequest::INPUT_NOT_SET:
      break;
  }
  return InvalidFieldError("input", "one of prompt, chat and tokens must be set");
}

absl::Status ReadAdapters(const v1::GenerateRequest& request, TextRequest& out) {
  if (!request.adapter().empty()) {
    if (request.adapters_size() > 0) {
      return InvalidFieldError("adapters", "must be empty when adapter is set");
    }
    absl::string_view text = request.adapter();
    TENON_ASSIGN_OR_RETURN(std::string owner, ConsumeOwner("adapter", &text));
    TENON_ASSIGN_OR_RETURN(AdapterRef ref, ParseAdapterRef("adapter", text));
    out.adapters.push_back(
        {.ref = std::move(ref), .owner = std::move(owner), .weight = 1.0f, .field = "adapter"});
    return absl::OkStatus();
  }
  TENON_RETURN_IF_ERROR(CheckCount("adapters", request.adapters_size(), kMaxAdapters, "adapters"));
  for (int i = 0; i < request.adapters_size(); ++i) {
    const v1::AdapterWeight& wanted = request.adapters(i);
    const std::string field = absl::StrCat("adapters[", i, "]");
    absl::string_view text = wanted.adapter();
    TENON_ASSIGN_OR_RETURN(std::string owner, ConsumeOwner(absl::StrCat(field, ".adapter"), &text));
    TENON_ASSIGN_OR_RETURN(AdapterRef ref, ParseAdapterRef(absl::StrCat(field, ".adapter"), text));
    const float weight = wanted.has_weight() ? wanted.weight() : 1.0f;
    TENON_RETURN_IF_ERROR(
        CheckRange(absl::StrCat(field, ".weight"), weight, -kMaxAdapterWeight, kMaxAdapterWeight));
    out.adapters.push_back(
        {.ref = std::move(ref), .owner = std::move(owner), .weight = weight, .field = field});
  }
  return absl::OkStatus();
}

absl::Status ReadLogitBias(const v1::SamplingOptions& options, const RequestLimits& limits,
                           SamplingParams& out) {
  TENON_RETURN_IF_ERROR(CheckCount("sampling.logit_bias", options.logit_bias_size(),
                                   kMaxLogitBiasEntries, "entries"));
  for (const auto& [token, bias] : options.logit_bias()) {
    const std::string field = absl::StrCat("sampling.logit_bias[", token, "]");
    TENON_RETURN_IF_ERROR(CheckTokenId(field, token, limits));
    TENON_RETURN_IF_ERROR(CheckRange(field, bias, -100, 100));
    out.logit_bias.emplace_back(token, bias);
  }
  // The map's order is not defined; the engine's arithmetic shall be.
  std::sort(out.logit_bias.begin(), out.logit_bias.end());
  return absl::OkStatus();
}

absl::Status ReadPenalties(const v1::SamplingOptions& options, const SamplingDefaults& defaults,
                           SamplingParams& out) {
  out.repetition_penalty =
      options.has_repetition_penalty() ? options.repetition_penalty() : defaults.repetition_penalty;
  out.presence_penalty = options.presence_penalty();
  out.frequency_penalty = options.frequency_penalty();
  TENON_RETURN_IF_ERROR(
      CheckRange("sampling.repetition_penalty", out.repetition_penalty, 0, 100, Lower::kOpen));
  TENON_RETURN_IF_ERROR(CheckRange("sampling.presence_penalty", out.presence_penalty, -2, 2));
  return CheckRange("sampling.frequency_penalty", out.frequency_penalty, -2, 2);
}

absl::Status ReadSampling(const v1::SamplingOptions& options, const RequestLimits& limits,
                          uint64_t drawn_seed, TextRequest& request) {
  const SamplingDefaults& defaults = limits.defaults;
  SamplingParams& out = request.sampling;
  out.temperature = options.has_temperature() ? options.temperature() : defaults.temperature;
  out.top_k = options.has_top_k() ? options.top_k() : defaults.top_k;
  out.top_p = options.has_top_p() ? options.top_p() : defaults.top_p;
  out.min_p = options.has_min_p() ? options.min_p() : defaults.min_p;
  out.seed = options.has_seed() ? options.seed() : drawn_seed;
  request.num_samples = options.has_n() ? options.n() : 1;
  TENON_RETURN_IF_ERROR(CheckRange("sampling.temperature", out.temperature, 0, 100));
  TENON_RETURN_IF_ERROR(CheckRange("sampling.top_k", out.top_k, 0, limits.vocab_size));
  TENON_RETURN_IF_ERROR(CheckRange("sampling.top_p", out.top_p, 0, 1, Lower::kOpen));
  TENON_RETURN_IF_ERROR(CheckRange("sampling.min_p", out.min_p, 0, 1));
  TENON_RETURN_IF_ERROR(CheckRange("sampling.n", request.num_samples, 1, kMaxSamples));
  TENON_RETURN_IF_ERROR(ReadPenalties(options, defaults, out));
  return ReadLogitBias(options, limits, out);
}

absl::Status ReadStopStrings(const v1::StoppingOptions& options, TextRequest& request) {
  TENON_RETURN_IF_ERROR(
      CheckCount("stopping.stop", options.stop_size(), kMaxStopStrings, "strings"));
  for (int i = 0; i < options.stop_size(); ++i) {
    const std::string& stop = options.stop(i);
    if (stop.empty() || stop.size() > kMaxStopStringBytes) {
      return InvalidFieldError(absl::StrCat("stopping.stop[", i, "]"),
                               absl::StrCat("length of ", stop.size(), " bytes is not in [1, ",
                                            kMaxStopStringBytes, "]"));
    }
  }
  request.stop.assign(options.stop().begin(), options.stop().end());
  request.include_stop = options.include_stop();
  return absl::OkStatus();
}

absl::Status ReadStopTokens(const v1::StoppingOptions& options, const RequestLimits& limits,
                            SamplingParams& out) {
  TENON_RETURN_IF_ERROR(ValidateTokenIds("stopping.stop_token_ids", options.stop_token_ids(),
                                         kMaxStopTokens, limits));
  out.stop_token_ids.assign(options.stop_token_ids().begin(), options.stop_token_ids().end());
  if (!out.ignore_eos) {
    const std::vector<int32_t>& eos = limits.defaults.eos_token_ids;
    out.stop_token_ids.insert(out.stop_token_ids.end(), eos.begin(), eos.end());
  }
  return absl::OkStatus();
}

absl::Status ReadStopping(const v1::StoppingOptions& options, const RequestLimits& limits,
                          TextRequest& request) {
  SamplingParams& out = request.sampling;
  if (options.has_max_tokens()) {
    TENON_RETURN_IF_ERROR(
        CheckRange("stopping.max_tokens", options.max_tokens(), 1, limits.max_context_tokens));
    out.max_tokens = options.max_tokens();
  }
  const int32_t most = options.has_max_tokens() ? out.max_tokens : limits.max_context_tokens;
  TENON_RETURN_IF_ERROR(CheckRange("stopping.min_tokens", options.min_tokens(), 0, most));
  out.min_tokens = options.min_tokens();
  out.ignore_eos = options.ignore_eos();
  TENON_RETURN_IF_ERROR(ReadStopStrings(options, request));
  return ReadStopTokens(options, limits, out);
}

absl::Status ReadOutput(const v1::OutputOptions& options, SamplingParams& out) {
  if (options.has_logprobs()) {
    TENON_RETURN_IF_ERROR(CheckRange("output.logprobs", options.logprobs(), 0, kMaxLogprobs));
    out.logprobs = options.logprobs();
  }
  if (options.has_prompt_logprobs()) {
    TENON_RETURN_IF_ERROR(
        CheckRange("output.prompt_logprobs", options.prompt_logprobs(), 0, kMaxLogprobs));
    out.prompt_logprobs = options.prompt_logprobs();
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ValidateRequestId(absl::string_view request_id) {
  TENON_RETURN_IF_ERROR(CheckCount("request_id", static_cast<int64_t>(request_id.size()),
                                   kMaxRequestIdBytes, "bytes"));
  for (const char c : request_id) {
    if (!absl::ascii_isgraph(static_cast<unsigned char>(c))) {
      return InvalidFieldError("request_id", "must be printable ASCII without spaces");
    }
  }
  return absl::OkStatus();
}

absl::Status ValidateText(absl::string_view field, absl::string_view text,
                          const RequestLimits& limits) {
  return CheckCount(field, static_cast<int64_t>(text.size()), limits.max_text_bytes, "bytes");
}

absl::Status ValidateTokenIds(absl::string_view field,
                              const google::protobuf::RepeatedField<int32_t>& ids, int64_t max_ids,
                              const RequestLimits& limits) {
  TENON_RETURN_IF_ERROR(CheckCount(field, ids.size(), max_ids, "tokens"));
  for (int i = 0; i < ids.size(); ++i) {
    if (ids[i] < 0 || ids[i] >= limits.vocab_size) {
      return CheckTokenId(absl::StrCat(field, "[", i, "]"), ids[i], limits);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<ChatPrompt> ToChatPrompt(const v1::ChatInput& chat, const RequestLimits& limits) {
  if (chat.messages().empty()) {
    return InvalidFieldError("chat.messages", "must not be empty");
  }
  TENON_RETURN_IF_ERROR(
      CheckCount("chat.messages", chat.messages_size(), kMaxChatMessages, "messages"));
  ChatPrompt prompt;
  prompt.add_generation_prompt = !chat.has_add_generation_prompt() || chat.add_generation_prompt();
  int64_t num_bytes = 0;
  for (int i = 0; i < chat.messages_size(); ++i) {
    const v1::ChatMessage& message = chat.messages(i);
    if (message.role().empty() || message.role().size() > kMaxRoleBytes) {
      return InvalidFieldError(absl::StrCat("chat.messages[", i, "].role"),
                               absl::StrCat("length of ", message.role().size(),
                                            " bytes is not in [1, ", kMaxRoleBytes, "]"));
    }
    num_bytes += static_cast<int64_t>(message.content().size());
    prompt.turns.push_back({message.role(), message.content()});
  }
  TENON_RETURN_IF_ERROR(CheckCount("chat.messages", num_bytes, limits.max_text_bytes, "bytes"));
  return prompt;
}

namespace {

absl::Status ReadService(const v1::GenerateRequest& request, const RequestLimits& limits,
                         TextRequest& out) {
  TENON_RETURN_IF_ERROR(CheckRange("priority", request.priority(), kMinPriority, kMaxPriority));
  out.priority = request.priority();
  if (request.deterministic() && !limits.batch_invariant) {
    return PreconditionError(
        "NOT_DETERMINISTIC", "deterministic",
        "this server computes with reference kernels, whose results depend on what else is in the "
        "batch");
  }
  out.deterministic = request.deterministic() || limits.always_deterministic;
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<TextRequest> ToTextRequest(const v1::GenerateRequest& request,
                                          const RequestLimits& limits, uint64_t drawn_seed) {
  TextRequest out;
  TENON_RETURN_IF_ERROR(ValidateRequestId(request.request_id()));
  out.request_id = request.request_id();
  TENON_RETURN_IF_ERROR(ReadInput(request, limits, out));
  TENON_RETURN_IF_ERROR(ReadAdapters(request, out));
  TENON_RETURN_IF_ERROR(CheckCount("routing_key",
                                   static_cast<int64_t>(request.routing_key().size()),
                                   kMaxRoutingKeyBytes, "bytes"));
  out.routing_key = request.routing_key();
  TENON_RETURN_IF_ERROR(ReadSampling(request.sampling(), limits, drawn_seed, out));
  TENON_RETURN_IF_ERROR(ReadStopping(request.stopping(), limits, out));
  TENON_RETURN_IF_ERROR(ReadOutput(request.output(), out.sampling));
  TENON_RETURN_IF_ERROR(ReadService(request, limits, out));
  return out;
}

}  // namespace tenon
