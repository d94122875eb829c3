#include "server/rpc/generation_call.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/time.h"
#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"
#include "adapters/registry/adapter_owner.h"
#include "server/rpc/adapter_sharing.h"

namespace tenon {
namespace {

// Tokens that an answer has when neither request nor context say less (generation.proto).
constexpr int32_t kDefaultMaxTokens = 256;

void AppendAdapter(std::string* out, const RequestedAdapter& adapter) {
  absl::StrAppend(out, adapter.ToString());
  if (adapter.weight != 1.0f) {
    absl::StrAppend(out, "*", adapter.weight);
  }
}

}  // namespace

TenantShare ShareOf(const TenantLimits& limits) {
  TenantShare share;
  share.weight = static_cast<double>(std::max<int64_t>(limits.weight, 1));
  share.kv_percent = limits.kv_percent;
  return share;
}

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
  TENON_RETURN_IF_ERROR(record_.admission());
  absl::StatusOr<TextRequest> text =
      ToTextRequest(request, backend_->limits, record_.environment().draw());
  record_.set_request_id(text.ok() ? absl::string_view(text->request_id) : "");
  TENON_RETURN_IF_ERROR(text.status());
  for (RequestedAdapter& adapter : text->adapters) {
    TENON_RETURN_IF_ERROR(SettleOwner(*record_.environment().directory, record_.tenant(), adapter));
  }
  TENON_ASSIGN_OR_RETURN(RequestTicket ticket, TakeTicket(*text));
  text->request_id = record_.request_id();
  text->tenant = record_.tenant();
  text->share = ShareOf(record_.environment().quotas->LimitsOf(record_.tenant()));
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
  Post([this, with_token_ids = request.output().token_ids(), moved = std::move(generation),
        claim = std::move(ticket)]() mutable {
    ticket_ = std::move(claim);
    Install(std::move(moved), with_token_ids);
  });
  return absl::OkStatus();
}

absl::StatusOr<RequestTicket> GenerationCall::TakeTicket(TextRequest& request) {
  QuotaBook& quotas = *record_.environment().quotas;
  const absl::StatusOr<int32_t> max_tokens =
      quotas.CapTokens(record_.tenant(), static_cast<int32_t>(request.sampling.max_tokens),
                       request.num_samples, kDefaultMaxTokens);
  absl::StatusOr<RequestTicket> ticket = RequestTicket();
  if (max_tokens.ok()) {
    request.sampling.max_tokens = *max_tokens;
    ticket = quotas.AdmitRequest(record_.tenant());
  } else {
    ticket = max_tokens.status();
  }
  if (!ticket.ok()) {
    const std::optional<ErrorDetail> detail = GetErrorDetail(ticket.status());
    record_.environment().metrics->RecordQuotaRefusal(record_.tenant(),
                                                      detail.has_value() ? detail->reason : "");
  }
  return ticket;
}

void GenerationCall::Post(absl::AnyInvocable<void()> task) {
  writer_->Post([claim = shared_from_this(), work = std::move(task)]() mutable { work(); });
}

void GenerationCall::Install(std::unique_ptr<TextGeneration> generation, bool with_token_ids) {
  generation_ = std::move(generation);
  responses_ = std::make_unique<ResponseWriter>(generation_.get(), backend_->tokenizer,
                                                with_token_ids, backend_->model.quantization());
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
  if (!chunk.tokens.empty() || chunk.finish.has_value()) {
    ticket_.Start();
  }
  if (!chunk.finish.has_value()) {
    return;
  }
  const TextFinish& finish = *chunk.finish;
  // The samples of a request share its prompt.
  usage_.prompt_tokens = std::max(usage_.prompt_tokens, finish.num_prompt_tokens);
  usage_.cached_prompt_tokens = std::max(usage_.cached_prompt_tokens, finish.num_cached_tokens);
  usage_.generated_tokens += finish.num_generated_tokens;
  usage_.device_seconds += absl::ToDoubleSeconds(finish.device_time);
  record_.environment().metrics->RecordGeneration(
      {finish.timings.queue, finish.timings.adapter_wait, finish.timings.prefill,
       finish.timings.decode, finish.num_generated_tokens});
}

void GenerationCall::RecordUsage() {
  ticket_.Charge(usage_.prompt_tokens + usage_.generated_tokens);
  ticket_ = RequestTicket();
  usage_.requests = 1;
  UsageEvent event;
  event.request_id = record_.request_id();
  event.tenant = record_.tenant();
  event.credential = record_.identity().credential;
  if (!generation_->selection().adapters().empty()) {
    const AdapterId& id = generation_->selection().adapters()[0].adapter.id();
    event.adapter = NameFor(record_.tenant(), id);
    event.version = id.version;
  }
  event.outcome = OutcomeName(generation_->status().code());
  event.totals = usage_;
  event.elapsed = record_.elapsed();
  record_.environment().usage->Add(event);
  record_.environment().metrics->RecordTenant(record_.tenant(),
                                              {.prompt_tokens = usage_.prompt_tokens,
                                               .cached_prompt_tokens = usage_.cached_prompt_tokens,
                                               .generated_tokens = usage_.generated_tokens,
                                               .device_seconds = usage_.device_seconds});
}

grpc::Status GenerationCall::End() {
  record_.environment().metrics->RecordLatency(record_.elapsed());
  record_.Note("generated_tokens", absl::StrCat(usage_.generated_tokens));
  RecordUsage();
  return record_.End(generation_->status());
}

}  // namespace tenon
