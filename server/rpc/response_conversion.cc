#include "server/rpc/response_conversion.h"

#include "absl/time/time.h"
#include "adapters/registry/adapter_owner.h"

namespace tenon {

v1::FinishReason ToProto(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStopToken:
      return v1::FINISH_REASON_STOP_TOKEN;
    case FinishReason::kStopString:
      return v1::FINISH_REASON_STOP_STRING;
    case FinishReason::kMaxTokens:
      return v1::FINISH_REASON_MAX_TOKENS;
    case FinishReason::kContextLength:
      return v1::FINISH_REASON_CONTEXT_LENGTH;
    case FinishReason::kNone:
    case FinishReason::kCancelled:
    case FinishReason::kDeadline:
    case FinishReason::kError:
      break;
  }
  return v1::FINISH_REASON_UNSPECIFIED;
}

void ResponseWriter::FillLogprobs(const SampledToken& token, v1::TokenLogprobs* out) const {
  const auto fill = [this](int32_t id, float logprob, v1::TokenLogprob* proto) {
    proto->set_id(id);
    proto->set_text(tokenizer_->TokenText(id));
    proto->set_logprob(logprob);
  };
  fill(token.token, token.logprob, out->mutable_chosen());
  for (const TokenLogprob& top : token.top_logprobs) {
    fill(top.token, top.logprob, out->add_top());
  }
}

void ResponseWriter::FillFinish(const TextFinish& finish, v1::Finish* out) const {
  out->set_reason(ToProto(finish.reason));
  out->set_stop_string(finish.stop_string);
  out->mutable_usage()->set_prompt_tokens(finish.num_prompt_tokens);
  out->mutable_usage()->set_cached_prompt_tokens(finish.num_cached_tokens);
  out->mutable_usage()->set_completion_tokens(finish.num_generated_tokens);
  v1::Timings* timings = out->mutable_timings();
  timings->set_queue_ms(absl::ToDoubleMilliseconds(finish.timings.queue));
  timings->set_adapter_wait_ms(absl::ToDoubleMilliseconds(finish.timings.adapter_wait));
  timings->set_prefill_ms(absl::ToDoubleMilliseconds(finish.timings.prefill));
  timings->set_decode_ms(absl::ToDoubleMilliseconds(finish.timings.decode));
  for (const WeightedAdapter& weighted : generation_->selection().named()) {
    v1::ServedAdapter* served = out->add_adapters();
    served->set_name(NameFor(generation_->request().tenant, weighted.adapter.id()));
    served->set_version(weighted.adapter.id().version);
    served->set_digest(weighted.adapter->digest);
    served->set_weight(weighted.weight);
    served->set_alias(weighted.route.alias);
    served->set_by_split(weighted.route.by_split);
  }
  out->set_request_id(generation_->request().request_id);
  out->set_deterministic(generation_->request().deterministic);
  out->set_quantization(quantization_);
}

template <typename Message>
void ResponseWriter::AddTokens(const TextChunk& chunk, Message& message) const {
  for (const SampledToken& token : chunk.tokens) {
    if (with_token_ids_) {
      message.add_token_ids(token.token);
    }
    if (generation_->request().sampling.logprobs.has_value()) {
      FillLogprobs(token, message.add_logprobs());
    }
  }
  if (chunk.finish.has_value()) {
    FillFinish(*chunk.finish, message.mutable_finish());
  }
}

bool ResponseWriter::Write(const TextChunk& chunk, v1::GenerateResponse& response) const {
  response.Clear();
  response.set_sample_index(chunk.sample_index);
  response.set_text(chunk.text);
  AddTokens(chunk, response);
  for (const SampledToken& token : chunk.prompt_logprobs) {
    FillLogprobs(token, response.add_prompt_logprobs());
  }
  return !response.text().empty() || response.token_ids_size() > 0 ||
         response.logprobs_size() > 0 || response.prompt_logprobs_size() > 0 ||
         response.has_finish();
}

void ResponseWriter::Append(const TextChunk& chunk, v1::GenerateOnceResponse& response) const {
  v1::Sample& sample = *response.mutable_samples(chunk.sample_index);
  sample.mutable_text()->append(chunk.text);
  AddTokens(chunk, sample);
  for (const SampledToken& token : chunk.prompt_logprobs) {
    FillLogprobs(token, response.add_prompt_logprobs());
  }
}

}  // namespace tenon
