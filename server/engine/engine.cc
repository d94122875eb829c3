#include "server/engine/engine.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"
#include "server/engine/adapter_pins.h"
#include "server/engine/engine_inbox.h"
#include "server/engine/engine_loop.h"

namespace tenon {
namespace {

absl::Status ValidateOptions(const EngineOptions& options) {
  const SchedulerOptions& scheduler = options.scheduler;
  if (options.kv_num_blocks <= 0 || options.kv_block_size <= 0) {
    return absl::InvalidArgumentError(absl::StrCat("KV memory of ", options.kv_num_blocks,
                                                   " blocks of ", options.kv_block_size,
                                                   " tokens: both must be positive"));
  }
  if (scheduler.max_sequences <= 0 || scheduler.max_batch_tokens < scheduler.max_sequences) {
    return absl::InvalidArgumentError(absl::StrCat(
        "max_batch_tokens ", scheduler.max_batch_tokens, " must be at least max_sequences ",
        scheduler.max_sequences, ", and both positive: each row of a step gets a token"));
  }
  if (scheduler.max_context_tokens <= 0 || options.max_queued_sequences <= 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "max_context_tokens ", scheduler.max_context_tokens, " and max_queued_sequences ",
        options.max_queued_sequences, " must be positive"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Engine>> Engine::Create(EngineOptions options,
                                                       std::unique_ptr<ModelRunner> runner,
                                                       AdapterCache* cache,
                                                       std::function<absl::Time()> clock) {
  TENON_RETURN_IF_ERROR(ValidateOptions(options));
  auto inbox = std::make_shared<EngineInbox>(options.max_queued_sequences, options.scheduler.fair);
  auto loop =
      std::make_unique<EngineLoop>(std::move(options), std::move(runner), cache, clock, inbox);
  return std::unique_ptr<Engine>(
      new Engine(std::move(inbox), std::move(loop), cache, std::move(clock)));
}

Engine::Engine(std::shared_ptr<EngineInbox> inbox, std::unique_ptr<EngineLoop> loop,
               AdapterCache* cache, std::function<absl::Time()> clock)
    : inbox_(std::move(inbox)),
      loop_(std::move(loop)),
      cache_(cache),
      clock_(std::move(clock)),
      thread_([this] { loop_->Run(); }) {}

Engine::~Engine() { Stop(); }

absl::Status Engine::Submit(GenerationRequest request) {
  const int64_t num_prompt_tokens = static_cast<int64_t>(request.prompt.size());
  const int64_t num_virtual_tokens = request.selection->num_virtual_tokens();
  if (!loop_->Fits(num_prompt_tokens, request.sampling.max_tokens, num_virtual_tokens)) {
    return QuotaExceededError(
        "KV_CAPACITY", "kv_blocks",
        absl::StrCat("a prompt of ", num_prompt_tokens, " tokens behind ", num_virtual_tokens,
                     " virtual ones, with max_tokens ", request.sampling.max_tokens,
                     ", does not fit the server's KV memory"));
  }
  if (!loop_->FitsTenant(num_prompt_tokens, request.sampling.max_tokens, num_virtual_tokens,
                         request.share)) {
    return QuotaExceededError(
        "KV_PERCENT", absl::StrCat("tenant:", request.tenant, "/kv_percent"),
        absl::StrCat("a prompt of ", num_prompt_tokens, " tokens behind ", num_virtual_tokens,
                     " virtual ones, with max_tokens ", request.sampling.max_tokens,
                     ", needs more than the ", request.share.kv_percent,
                     " percent of the KV memory that tenant ", request.tenant, " may hold"));
  }
  TENON_RETURN_IF_ERROR(inbox_->Reserve(request.tenant, request.num_samples));
  request.arrival = clock_();
  request.stream->set_on_credit([inbox = inbox_] { inbox->Wake(); });
  if (!request.selection->is_base()) {
    // Before the engine looks: an old failure whose back-off is over becomes a new load. Without
    // room now the engine asks again, and it is the engine that says when there never will be.
    absl::StatusOr<AdapterClaim> claim =
        cache_->Claim(HandlesOf(*request.selection), [inbox = inbox_] { inbox->Wake(); });
    if (claim.ok()) {
      request.claim = *std::move(claim);
    }
  }
  return inbox_->Put(std::move(request));
}

void Engine::Wake() { inbox_->Wake(); }

void Engine::Drain(absl::Time deadline) {
  inbox_->Close();
  inbox_->AwaitIdle(deadline - clock_());
}

void Engine::Stop() {
  absl::call_once(stopped_, [this] {
    inbox_->Stop();
    thread_.join();
  });
}

EngineStats Engine::stats() const { return inbox_->stats(); }

}  // namespace tenon
