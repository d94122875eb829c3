#include "server/engine/engine_loop.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"

namespace tenon {

EngineLoop::EngineLoop(EngineOptions options, std::unique_ptr<ModelRunner> runner,
                       AdapterCache* cache, std::function<absl::Time()> clock,
                       std::shared_ptr<EngineInbox> inbox)
    : options_(std::move(options)),
      runner_(std::move(runner)),
      cache_(cache),
      clock_(std::move(clock)),
      inbox_(std::move(inbox)),
      wake_([shared = inbox_] { shared->Wake(); }),
      pool_(options_.kv_num_blocks, options_.kv_block_size),
      scheduler_(options_.scheduler, &pool_) {
  stats_.kv_blocks_total = pool_.num_blocks();
}

void EngineLoop::Run() {
  for (bool stop = false; !stop;) {
    EngineInbox::Mail mail = inbox_->Take();
    stop = mail.stop;
    const absl::Time now = clock_();
    for (GenerationRequest& request : mail.requests) {
      Start(std::move(request), now);
    }
    if (stop) {
      const absl::Status stopping = RetryLaterError(
          "STOPPING", "the server stopped before the request was complete", absl::Seconds(1));
      for (const Sequence* sequence : scheduler_.sequences()) {
        Fail(sequence->id(), stopping, now);
      }
    }
    EndLate(now);
    UpdateAdapters(now);
    UpdateContexts();
    merged_ = options_.merge_tier == nullptr ? nullptr : options_.merge_tier->merged();
    const absl::Time nearest_deadline = UpdateSequences(now);
    const bool ran = RunStep();
    merged_.reset();  // what was unmerged meanwhile can go
    const bool delivered = DeliverFinished(clock_());
    if (!ran && !stop && !delivered) {  // an end may make room for an adapter
      inbox_->Wait(nearest_deadline - clock_());
      last_end_ = clock_();  // idle time says nothing about how fast sequences are served
    }
  }
}

void EngineLoop::Start(GenerationRequest request, absl::Time now) {
  const absl::Duration expected_wait = scheduler_.ExpectedWait(request.tenant, now);
  auto active = std::make_shared<ActiveRequest>(
      ActiveRequest{.stream = std::move(request.stream),
                    .pins = AdapterPins(request.selection, std::move(request.claim)),
                    .tenant = request.tenant,
                    .arrival = request.arrival,
                    .adapter_names = {},
                    .samples = {},
                    .prompt_logprobs = {}});
  for (const WeightedAdapter& wanted : request.selection->adapters()) {
    active->adapter_names.push_back(wanted.adapter.id().ToString());
  }
  const SequenceId leader = next_id_;
  for (int32_t i = 0; i < request.num_samples; ++i) {
    Sequence::Options options{.id = next_id_++,
                              .request_id = request.request_id,
                              .tenant = request.tenant,
                              .selection = request.selection,
                              .prompt = request.prompt,
                              .sampling = request.sampling,
                              .sample_index = i,
                              .leader = std::nullopt,
                              .arrival = request.arrival,
                              .deadline = request.deadline,
                              .priority = request.priority,
                              .share = request.share,
                              .deterministic = request.deterministic};
    options.sampling.seed += static_cast<uint64_t>(i);
    if (i > 0) {
      options.leader = leader;
      options.sampling.prompt_logprobs.reset();  // the same for all samples: told once
    }
    active->samples.push_back(options.id);
    active_.emplace(options.id, ActiveSequence{.request = active,
                                               .error = absl::OkStatus(),
                                               .device_time = absl::ZeroDuration()});
    auto sequence = std::make_unique<Sequence>(std::move(options));
    sequence->set_waiting_for_adapter(!active->pins.complete());
    scheduler_.Add(std::move(sequence));
  }
  RefuseIfLate(request, active->samples, expected_wait, now);
  if (!active->pins.complete()) {
    loading_.push_back(std::move(active));
  }
}

void EngineLoop::RefuseIfLate(const GenerationRequest& request, std::span<const SequenceId> samples,
                              absl::Duration expected_wait, absl::Time now) {
  if (request.deadline <= now || now + expected_wait <= request.deadline) {
    return;
  }
  const absl::Status status = QuotaExceededError(
      "DEADLINE_UNREACHABLE", absl::StrCat("tenant:", request.tenant, "/engine"),
      absl::StrCat(
          "request ", request.request_id, " would wait about ",
          absl::FormatDuration(absl::Trunc(expected_wait, absl::Milliseconds(1))),
          " for its place, and its deadline is in ",
          absl::FormatDuration(absl::Trunc(request.deadline - now, absl::Milliseconds(1)))),
      expected_wait);
  for (const SequenceId id : samples) {
    Fail(id, status, now);
  }
}

void EngineLoop::EndLate(absl::Time now) {
  for (const Scheduler::LateSequence& late : scheduler_.LateSequences(now)) {
    Fail(late.id,
         absl::DeadlineExceededError(absl::StrCat(
             "request ", scheduler_.Find(late.id)->request_id(),
             " ended before it began: it would still wait about ",
             absl::FormatDuration(absl::Trunc(late.expected_wait, absl::Milliseconds(1))),
             " for its place, beyond its deadline")),
         now);
  }
}

bool EngineLoop::UpdateLoading(const std::shared_ptr<ActiveRequest>& request, absl::Time now,
                               bool& contended) {
  absl::Status status;
  if (!request->pins.claimed()) {
    status = request->pins.Claim(cache_, !contended, now - request->arrival, wake_);
    contended = contended || (status.ok() && !request->pins.claimed());
  }
  if (status.ok() && request->pins.claimed()) {
    status = request->pins.Update(cache_, wake_);
  }
  for (const SequenceId id : request->samples) {
    if (!status.ok()) {
      Fail(id, status, now);
    } else if (Sequence* sequence = scheduler_.Find(id); sequence != nullptr) {
      sequence->set_waiting_for_adapter(!request->pins.complete());
    }
  }
  return !status.ok() || request->pins.complete();
}

void EngineLoop::SortLoading() {
  absl::flat_hash_map<std::string, int64_t> num_claims;  // by tenant
  for (const auto& [id, sequence] : active_) {
    num_claims[sequence.request->tenant] += sequence.request->pins.claimed() ? 1 : 0;
  }
  const auto rank = [&](const std::shared_ptr<ActiveRequest>& request) {
    return std::pair(num_claims[request->tenant], request->samples.front());
  };
  std::sort(loading_.begin(), loading_.end(),
            [&](const auto& a, const auto& b) { return rank(a) < rank(b); });
}

void EngineLoop::UpdateAdapters(absl::Time now) {
  if (loading_.empty()) {
    return;
  }
  const auto in_flight = [this](SequenceId id) { return scheduler_.Find(id) != nullptr; };
  const auto has_ended = [&](const std::shared_ptr<ActiveRequest>& request) {
    return std::none_of(request->samples.begin(), request->samples.end(), in_flight);
  };
  bool contended = false;
  const auto is_done = [&](const std::shared_ptr<ActiveRequest>& request) {
    return UpdateLoading(request, now, contended);
  };
  std::erase_if(loading_, has_ended);  // first: their claims make room
  SortLoading();
  std::erase_if(loading_, is_done);
  cache_->SetContended(contended);
}

void EngineLoop::UpdateContexts() {
  const int64_t num_departures = cache_->num_departures();
  if (std::exchange(num_departures_, num_departures) != num_departures) {
    scheduler_.LetContextsGo([this](const std::string& digest) {
      return cache_->state(digest) == Residency::kResident;
    });
  }
}

absl::Time EngineLoop::UpdateSequences(absl::Time now) {
  absl::Time nearest_deadline = absl::InfiniteFuture();
  for (Sequence* sequence : scheduler_.sequences()) {
    const TokenStream& stream = *active_.at(sequence->id()).request->stream;
    FinishReason end = stream.cancelled(sequence->sample_index());
    if (end == FinishReason::kNone && sequence->deadline() <= now) {
      end = FinishReason::kDeadline;
    }
    if (end != FinishReason::kNone) {
      scheduler_.Finish(sequence->id(), end, now);
      continue;
    }
    sequence->set_paused(!stream.has_credit());
    // A merged row is right, and has other bits than one that is not.
    sequence->set_merged(!sequence->deterministic() && merged_ != nullptr &&
                         merged_->contains(sequence->selection()->key()));
    nearest_deadline = std::min(nearest_deadline, sequence->deadline());
  }
  return nearest_deadline;
}

bool EngineLoop::RunStep() {
  const absl::Time begin = clock_();
  const Batch batch = scheduler_.Schedule(begin);
  if (batch.empty()) {
    return false;
  }
  absl::StatusOr<StepOutput> output = RunModel(batch);
  const absl::Time end = clock_();
  CountStep(batch, output.ok() ? &*output : nullptr, end - begin);
  ShareDeviceTime(batch, end - begin);
  if (options_.merge_tier != nullptr) {
    options_.merge_tier->Observe(batch, end);
  }
  if (!output.ok()) {
    FailContexts(batch, std::vector<absl::Status>(batch.contexts.size(), output.status()), end);
    for (const BatchRow& row : batch.rows) {
      Fail(row.sequence->id(), output.status(), end);
    }
    return true;
  }
  FailContexts(batch, output->context_status, end);
  FailRows(batch, output->row_status, end);
  scheduler_.Commit(batch, output->sampled, end);
  PushEvents(batch, *std::move(output));
  return true;
}

absl::StatusOr<StepOutput> EngineLoop::RunModel(const Batch& batch) {
  std::vector<ResolvedSelection> adapters;
  adapters.reserve(batch.segments.size() + batch.contexts.size());
  for (const BatchSegment& segment : batch.segments) {
    const SequenceId id = batch.rows[segment.row_begin].sequence->id();
    adapters.push_back({active_.at(id).request->pins.resolved(), FindMerged(segment)});
  }
  for (const ContextRow& row : batch.contexts) {
    adapters.push_back({active_.at(row.user->id()).request->pins.resolved(), nullptr});
  }
  absl::StatusOr<StepOutput> output = runner_->Run(batch, adapters);
  if (!output.ok()) {
    return Annotate(output.status(), absl::StrCat("step ", stats_.num_steps));
  }
  const auto samples = [](const BatchRow& row) { return row.samples; };
  const int64_t expected = std::count_if(batch.rows.begin(), batch.rows.end(), samples);
  if (static_cast<int64_t>(output->sampled.size()) != expected) {
    return absl::InternalError(absl::StrCat("step ", stats_.num_steps, " gave ",
                                            output->sampled.size(), " tokens instead of ",
                                            expected));
  }
  return output;
}

const MergedWeights* EngineLoop::FindMerged(const BatchSegment& segment) const {
  if (!segment.merged) {
    return nullptr;
  }
  const auto found = merged_->find(segment.selection->key());
  return found == merged_->end() ? nullptr : found->second.get();
}

void EngineLoop::FailContexts(const Batch& batch, const std::vector<absl::Status>& context_status,
                              absl::Time now) {
  for (size_t i = 0; i < context_status.size(); ++i) {
    if (!context_status[i].ok()) {
      for (const SequenceId id : scheduler_.UsersOf(*batch.contexts[i].context)) {
        Fail(id, context_status[i], now);
      }
    }
  }
}

void EngineLoop::FailRows(const Batch& batch, const std::vector<absl::Status>& row_status,
                          absl::Time now) {
  size_t next_sampled = 0;
  for (const BatchRow& row : batch.rows) {
    if (row.samples && next_sampled < row_status.size()) {
      const absl::Status& status = row_status[next_sampled++];
      if (!status.ok()) {
        Fail(row.sequence->id(), status, now);
      }
    }
  }
}

void EngineLoop::PushEvents(const Batch& batch, StepOutput output) {
  size_t next_sampled = 0;
  for (size_t i = 0; i < batch.rows.size(); ++i) {
    const BatchRow& row = batch.rows[i];
    const Sequence& sequence = *row.sequence;
    if (i < output.prompt_logprobs.size()) {
      KeepPromptLogprobs(row, std::move(output.prompt_logprobs[i]));
    }
    if (!row.samples) {
      continue;
    }
    SampledToken& token = output.sampled[next_sampled++];
    if (sequence.finish_reason() == FinishReason::kError) {
      continue;  // its row failed: there is no token
    }
    ActiveRequest& request = *active_.at(sequence.id()).request;
    ++stats_.generated_tokens;
    if (sequence.num_generated_tokens() == 1) {
      stats_.prompt_tokens += sequence.num_prompt_tokens();
      stats_.cached_prompt_tokens += sequence.num_cached_tokens();
      if (sequence.sampling().prompt_logprobs.has_value()) {
        request.stream->Push(PromptEvent{.prompt_logprobs = std::move(request.prompt_logprobs)});
      }
    }
    request.stream->Push(
        TokenEvent{.sample_index = sequence.sample_index(),
                   .token = std::move(token),
                   .is_stop = sequence.finish_reason() == FinishReason::kStopToken});
  }
}

void EngineLoop::KeepPromptLogprobs(const BatchRow& row, std::vector<SampledToken> chunk) {
  const Sequence& sequence = *row.sequence;
  // After a preemption the prompt is computed once more: what was told is not told again.
  const int64_t num_told = sequence.num_generated_tokens() - (row.samples ? 1 : 0);
  if (chunk.empty() || num_told > 0) {
    return;
  }
  std::vector<SampledToken>& kept = active_.at(sequence.id()).request->prompt_logprobs;
  kept.resize(sequence.num_prompt_tokens() - 1);
  const int64_t count = std::min<int64_t>(static_cast<int64_t>(chunk.size()),
                                          static_cast<int64_t>(kept.size()) - row.first_token);
  for (int64_t i = 0; i < count; ++i) {
    kept[row.first_token + i] = std::move(chunk[i]);
  }
}

void EngineLoop::CountStep(const Batch& batch, const StepOutput* output, absl::Duration run) {
  const int64_t num_merged_tokens = output == nullptr ? 0 : output->num_merged_tokens;
  ++stats_.num_steps;
  stats_.num_replays += output != nullptr && output->is_replay ? 1 : 0;
  stats_.merged_tokens += num_merged_tokens;
  if (!options_.on_step) {
    return;
  }
  StepStats step{.num_rows = static_cast<int64_t>(batch.rows.size()),
                 .num_segments = static_cast<int64_t>(batch.segments.size()),
                 .num_prefill_tokens = 0,
                 .num_decode_tokens = 0,
                 .num_context_tokens = batch.num_context_tokens,
                 .num_merged_tokens = num_merged_tokens,
                 .run = run};
  for (const BatchRow& row : batch.rows) {
    const bool is_decode = row.samples && row.num_tokens == 1;
    (is_decode ? step.num_decode_tokens : step.num_prefill_tokens) += row.num_tokens;
  }
  options_.on_step(step);
}

void EngineLoop::ShareDeviceTime(const Batch& batch, absl::Duration run) {
  const TokenCosts& costs = options_.scheduler.costs;
  std::vector<std::pair<SequenceId, double>> parts;
  for (const BatchRow& row : batch.rows) {
    parts.emplace_back(row.sequence->id(),
                       costs.Of(*row.sequence, row.first_token, row.first_token + row.num_tokens));
  }
  for (const ContextRow& row : batch.contexts) {
    parts.emplace_back(row.user->id(), costs.prefill * static_cast<double>(row.num_tokens));
  }
  double total = 0;
  for (const auto& [id, cost] : parts) {
    total += cost;
  }
  for (const auto& [id, cost] : parts) {
    active_.at(id).device_time += run * (cost / total);
  }
}

}  // namespace tenon
