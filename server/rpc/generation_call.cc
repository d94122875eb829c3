#include "server/rpc/generation_call.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "adapters/base/status_macros.h"

namespace tenon {
namespace {

void AppendAdapter(std::string* out, const RequestedAdapter& adapter) {
  absl::StrAppend(out, adapter.ref.ToString());
  if (adapter.weight != 1.0f) {
    absl::StrAppend(out, "*", adapter.weight);
  }
}

}  // namespace

void GenerationCall::Begin(const grpc::CallbackServerContext& context,
                           const v1::GenerateRequest& request) {
  self_ = shared_from_this();
  const absl::Status status = Submit(context, request);
  if (!status.ok()) {
    Fail(record_.End(status));
  }
}

absl::Status GenerationCall::Submit(const grpc::CallbackServerContext& context,
                                    const v1::GenerateRequest& request) {
  absl::StatusOr<TextRequest> text =
      ToTextRequest(request, backend_->limits, record_.environment().draw());
  record_.set_request_id(text.ok() ? absl::string_view(text->request_id) : "");
  TENON_RETURN_IF_ERROR(text.status());
  text->request_id = record_.request_id();
  text->tenant = record_.tenant();
  text->deadline = absl::FromChrono(context.deadline());
  if (!text->adapters.empty()) {
    record_.Note("adapter", absl::StrJoin(text->adapters, "+", AppendAdapter));
  }
  // The engine's stream holds this for as long as it lives, hence no claim but a weak one.
  auto on_readable = [weak = weak_from_this()] {
    const std::shared_ptr<GenerationCall> call = weak.lock();
    if (call != nullptr && !call->pump_posted_.exchange(true)) {
      call->Post([raw = call.get()] { raw->PumpOnce(); });
    }
  };
  TENON_ASSIGN_OR_RETURN(std::unique_ptr<TextGeneration> generation,
                         backend_->generator->Start(*std::move(text), std::move(on_readable)));
  Post([this, with_token_ids = request.output().token_ids(),
        moved = std::move(generation)]() mutable { Install(std::move(moved), with_token_ids); });
  return absl::OkStatus();
}

void GenerationCall::Post(absl::AnyInvocable<void()> task) {
  writer_->Post([claim = shared_from_this(), work = std::move(task)]() mutable { work(); });
}

void GenerationCall::Install(std::unique_ptr<TextGeneration> generation, bool with_token_ids) {
  generation_ = std::move(generation);
  responses_ =
      std::make_unique<ResponseWriter>(generation_.get(), backend_->tokenizer, with_token_ids);
  if (cancelled_) {
    generation_->Cancel(FinishReason::kCancelled);
  }
  Pump();
}

void GenerationCall::PumpOnce() {
  pump_posted_ = false;  // before reading: what is pushed from here on posts again
  if (generation_ != nullptr) {
    Pump();
  }
}

void GenerationCall::Cancel() {
  Post([this] {
    cancelled_ = true;
    if (generation_ != nullptr) {
      generation_->Cancel(FinishReason::kCancelled);
    }
  });
}

void GenerationCall::Count(const TextChunk& chunk) {
  if (!chunk.finish.has_value()) {
    return;
  }
  const TextFinish& finish = *chunk.finish;
  num_generated_tokens_ += finish.num_generated_tokens;
  record_.environment().metrics->RecordGeneration(
      {finish.timings.queue, finish.timings.adapter_wait, finish.timings.prefill,
       finish.timings.decode, finish.num_generated_tokens});
}

grpc::Status GenerationCall::End() {
  record_.environment().metrics->RecordLatency(record_.elapsed());
  record_.Note("generated_tokens", absl::StrCat(num_generated_tokens_));
  return record_.End(generation_->status());
}

}  // namespace tenon
