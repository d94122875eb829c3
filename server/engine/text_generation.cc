#include "server/engine/text_generation.h"

#include <algorithm>
#include <iterator>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"
#include "adapters/registry/adapter_owner.h"

namespace tenon {
namespace {

constexpr int64_t kDefaultMaxTokens = 256;

}  // namespace

TextGeneration::TextGeneration(const Tokenizer* tokenizer, TextRequest request,
                               std::shared_ptr<const AdapterSelection> selection,
                               std::shared_ptr<TokenStream> stream)
    : request_(std::move(request)),
      selection_(std::move(selection)),
      stream_(std::move(stream)),
      stop_tokens_(request_.sampling.stop_token_ids.begin(),
                   request_.sampling.stop_token_ids.end()),
      num_unfinished_(request_.num_samples) {
  TextStreamOptions options;
  options.stop = request_.stop;
  options.min_tokens = request_.sampling.min_tokens;
  options.include_stop = request_.include_stop;
  samples_.reserve(request_.num_samples);
  for (int32_t i = 0; i < request_.num_samples; ++i) {
    samples_.emplace_back(tokenizer, options);
    samples_.back().chunk.sample_index = i;
  }
}

std::optional<TextChunk> TextGeneration::Next() {
  if (ready_.empty()) {
    TakeEvents();
  }
  if (ready_.empty()) {
    return std::nullopt;
  }
  TextChunk chunk = std::move(ready_.front());
  ready_.pop_front();
  return chunk;
}

// One round: everything that waits, joined by sample. What a round takes is bounded by the outbox.
void TextGeneration::TakeEvents() {
  while (std::optional<GenerationEvent> event = stream_->Pop()) {
    std::visit([this](auto& value) { Take(std::move(value)); }, *event);
  }
  for (Sample& sample : samples_) {
    if (sample.touched && status_.ok()) {
      ready_.push_back(std::move(sample.chunk));
    }
    if (sample.touched) {
      const int32_t index = static_cast<int32_t>(&sample - samples_.data());
      sample.chunk = TextChunk{};
      sample.chunk.sample_index = index;
      sample.touched = false;
    }
  }
}

void TextGeneration::Take(TokenEvent event) {
  Sample& sample = samples_[event.sample_index];
  if (sample.text.stopped()) {
    return;  // the engine ran on until it saw that the sample had ended
  }
  ++sample.num_tokens;
  const int32_t token = event.token.token;
  Touch(event.sample_index).tokens.push_back(std::move(event.token));
  if (!stop_tokens_.contains(token)) {  // the answer ends before a stop token, as before a string
    AddPiece(sample.text.Append(token), event.sample_index);
  }
}

void TextGeneration::Take(PromptEvent event) {
  Touch(0).prompt_logprobs = std::move(event.prompt_logprobs);
}

void TextGeneration::Take(FinishEvent event) {
  --num_unfinished_;
  Sample& sample = samples_[event.sample_index];
  if (!sample.text.stopped()) {
    if (!event.status.ok()) {
      Fail(event.status);
      return;
    }
    AddPiece(sample.text.Flush(), event.sample_index);
  }
  const bool at_stop_string = sample.text.stopped();
  Touch(event.sample_index).finish =
      TextFinish{at_stop_string ? FinishReason::kStopString : event.reason,
                 sample.stop_string,
                 event.num_prompt_tokens,
                 event.num_cached_tokens,
                 sample.num_tokens,
                 event.timings,
                 event.device_time};
}

void TextGeneration::AddPiece(absl::StatusOr<TextPiece> piece, int32_t sample_index) {
  if (!piece.ok()) {
    Fail(piece.status());
    return;
  }
  absl::StrAppend(&Touch(sample_index).text, piece->text);
  if (piece->stop_matched.has_value()) {
    samples_[sample_index].stop_string = *std::move(piece->stop_matched);
    stream_->CancelSample(sample_index, FinishReason::kStopString);
  }
}

TextChunk& TextGeneration::Touch(int32_t sample_index) {
  samples_[sample_index].touched = true;
  return samples_[sample_index].chunk;
}

void TextGeneration::Fail(const absl::Status& status) {
  if (status_.ok()) {
    status_ = status;
    stream_->CancelAll(FinishReason::kCancelled);
  }
}

TextGenerator::TextGenerator(Options options, const Tokenizer* tokenizer,
                             const AdapterRegistry* registry, Engine* engine)
    : options_(options), tokenizer_(tokenizer), registry_(registry), engine_(engine) {}

absl::StatusOr<std::unique_ptr<TextGeneration>> TextGenerator::Start(
    TextRequest request, absl::AnyInvocable<void()> on_readable) {
  TENON_ASSIGN_OR_RETURN(std::shared_ptr<const AdapterSelection> selection, Select(request));
  TENON_ASSIGN_OR_RETURN(std::vector<int32_t> prompt, MakePrompt(request));
  TENON_RETURN_IF_ERROR(SettleLength(static_cast<int64_t>(prompt.size()),
                                     selection->num_virtual_tokens(), request.sampling));

  auto stream = std::make_shared<TokenStream>(options_.outbox_tokens);
  stream->set_on_readable(std::move(on_readable));
  GenerationRequest submitted;
  submitted.request_id = request.request_id;
  submitted.tenant = request.tenant;
  submitted.prompt = std::move(prompt);
  submitted.selection = selection;
  submitted.sampling = request.sampling;
  submitted.num_samples = request.num_samples;
  submitted.deadline = request.deadline;
  submitted.priority = request.priority;
  submitted.share = request.share;
  submitted.deterministic = request.deterministic;
  submitted.stream = stream;
  auto generation = std::make_unique<TextGeneration>(tokenizer_, std::move(request),
                                                     std::move(selection), std::move(stream));
  TENON_RETURN_IF_ERROR(engine_->Submit(std::move(submitted)));
  return generation;
}

absl::StatusOr<std::shared_ptr<const AdapterSelection>> TextGenerator::Select(
    const TextRequest& request) const {
  std::vector<WeightedAdapter> adapters;
  int64_t num_contexts = 0;
  for (const RequestedAdapter& wanted : request.adapters) {
    AdapterRoute route;
    absl::StatusOr<AdapterHandle> found = registry_->Acquire(
        wanted.owner.empty() ? request.tenant : wanted.owner, wanted.ref,
        request.routing_key.empty() ? request.request_id : request.routing_key, &route);
    if (absl::IsNotFound(found.status()) && !wanted.owner.empty()) {
      return AdapterNotFoundError(wanted.ToString());
    }
    TENON_ASSIGN_OR_RETURN(AdapterHandle handle, std::move(found));
    for (const WeightedAdapter& other : adapters) {
      if (other.adapter.id() == handle.id()) {
        return InvalidFieldError(wanted.field,
                                 absl::StrCat(wanted.ref.ToString(), " is named twice"));
      }
    }
    if (!handle->has_weight && wanted.weight != 0.0f && wanted.weight != 1.0f) {
      return InvalidFieldError(
          absl::StrCat(wanted.field, ".weight"),
          absl::StrCat(wanted.weight, " for ", wanted.ref.ToString(), ", whose effect (",
                       handle->method, ") is not proportional: only 0 and 1 can be served"));
    }
    if (handle->num_virtual_tokens > 0 && wanted.weight != 0.0f && ++num_contexts > 1) {
      return InvalidFieldError(wanted.field,
                               absl::StrCat(wanted.ref.ToString(),
                                            " has virtual tokens, and so has another adapter of "
                                            "the request; at most one may"));
    }
    adapters.push_back({std::move(handle), wanted.weight, std::move(route)});
  }
  return std::make_shared<const AdapterSelection>(std::move(adapters));
}

absl::StatusOr<std::vector<int32_t>> TextGenerator::MakePrompt(const TextRequest& request) const {
  if (const auto* ids = std::get_if<std::vector<int32_t>>(&request.input)) {
    return *ids;
  }
  if (const auto* text = std::get_if<std::string>(&request.input)) {
    return tokenizer_->Encode(*text, /*add_special_tokens=*/true);
  }
  const auto& chat = std::get<ChatPrompt>(request.input);
  TENON_ASSIGN_OR_RETURN(const std::string rendered,
                         tokenizer_->RenderChat(chat.turns, chat.add_generation_prompt));
  return tokenizer_->Encode(rendered, /*add_special_tokens=*/false);
}

absl::Status TextGenerator::SettleLength(int64_t num_prompt_tokens, int64_t num_virtual_tokens,
                                         SamplingParams& sampling) const {
  if (num_prompt_tokens == 0) {
    return PreconditionError("PROMPT_EMPTY", "prompt", "the prompt has no tokens");
  }
  const int64_t room = options_.max_context_tokens - num_virtual_tokens - num_prompt_tokens;
  if (room <= 0) {
    return PreconditionError(
        "PROMPT_TOO_LONG", "prompt",
        absl::StrCat("the prompt has ", num_prompt_tokens, " tokens; the context holds ",
                     options_.max_context_tokens, ", one of them for the answer",
                     num_virtual_tokens == 0 ? ""
                                             : absl::StrCat(" and ", num_virtual_tokens,
                                                            " for the adapter's virtual tokens")));
  }
  if (sampling.max_tokens == 0) {
    sampling.max_tokens = static_cast<int32_t>(
        std::max(std::min(room, kDefaultMaxTokens), std::min<int64_t>(room, sampling.min_tokens)));
  }
  return absl::OkStatus();
}

}  // namespace tenon
