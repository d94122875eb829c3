#include "tests/golden/step_driver.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "adapters/base/status_macros.h"

namespace tenon {
namespace {

WeightedAdapter Weighted(const std::string& adapter, float weight, const AdapterMap& compiled) {
  auto info = std::make_shared<AdapterInfo>();
  info->id = {std::string(kDefaultTenant), adapter, 1};
  info->digest = adapter;
  if (const auto found = compiled.find(adapter); found != compiled.end()) {
    info->num_virtual_tokens = found->second->num_virtual_tokens();
  }
  return {AdapterHandle(std::move(info)), weight};
}

std::shared_ptr<const AdapterSelection> Select(const DriverRequest& request,
                                               const AdapterMap& compiled) {
  std::vector<WeightedAdapter> adapters;
  if (!request.adapter.empty()) {
    adapters.push_back(Weighted(request.adapter, 1.0f, compiled));
  }
  for (const auto& [adapter, weight] : request.selection) {
    adapters.push_back(Weighted(adapter, weight, compiled));
  }
  return std::make_shared<const AdapterSelection>(std::move(adapters));
}

void AddRequests(const std::vector<DriverRequest>& requests, const AdapterMap& compiled,
                 const DriverOptions& driver, Scheduler& scheduler) {
  for (size_t i = 0; i < requests.size(); ++i) {
    Sequence::Options options;
    options.id = i;
    options.request_id = absl::StrCat("request-", i);
    options.tenant = std::string(kDefaultTenant);
    options.selection = Select(requests[i], compiled);
    options.prompt = requests[i].prompt;
    options.sampling = requests[i].sampling;
    auto sequence = std::make_unique<Sequence>(std::move(options));
    sequence->set_merged(driver.merged && driver.merged(*sequence->selection()) != nullptr);
    scheduler.Add(std::move(sequence));
  }
}

absl::StatusOr<std::vector<ResolvedSelection>> Resolve(const Batch& batch,
                                                       const AdapterMap& adapters,
                                                       const DriverOptions& options) {
  std::vector<ResolvedSelection> resolved;
  std::vector<const AdapterSelection*> selections;
  for (const BatchSegment& segment : batch.segments) {
    selections.push_back(segment.selection.get());
  }
  for (const ContextRow& row : batch.contexts) {
    selections.push_back(row.context->selection().get());
  }
  for (size_t i = 0; i < selections.size(); ++i) {
    const AdapterSelection* const selection = selections[i];
    std::vector<ResolvedAdapter>& list = resolved.emplace_back().adapters;
    for (const WeightedAdapter& weighted : selection->adapters()) {
      const auto found = adapters.find(weighted.adapter->digest);
      if (found == adapters.end()) {
        return absl::NotFoundError(absl::StrCat("no adapter ", weighted.adapter->digest));
      }
      list.push_back({found->second.get(), weighted.weight});
    }
    if (i < batch.segments.size() && batch.segments[i].merged) {
      resolved.back().merged = options.merged(*selection);
    }
  }
  return resolved;
}

absl::Status Record(const Batch& batch, const StepOutput& output,
                    std::vector<DriverResult>& results) {
  for (const absl::Status& status : output.context_status) {
    TENON_RETURN_IF_ERROR(status);
  }
  for (const absl::Status& status : output.row_status) {
    TENON_RETURN_IF_ERROR(status);
  }
  size_t next = 0;
  for (size_t r = 0; r < batch.rows.size(); ++r) {
    DriverResult& result = results[batch.rows[r].sequence->id()];
    for (const SampledToken& scored : output.prompt_logprobs[r]) {
      result.prompt_logprobs.push_back(scored);
    }
    if (batch.rows[r].samples) {
      result.steps.push_back(output.sampled[next++]);
    }
  }
  return absl::OkStatus();
}

}  // namespace

std::vector<int32_t> DriverResult::tokens() const {
  std::vector<int32_t> ids;
  for (const SampledToken& step : steps) {
    ids.push_back(step.token);
  }
  return ids;
}

absl::StatusOr<std::vector<DriverResult>> RunTogether(ModelRunner& runner,
                                                      const AdapterMap& adapters,
                                                      const std::vector<DriverRequest>& requests,
                                                      const DriverOptions& options) {
  BlockPool pool(options.num_blocks, options.block_size);
  SchedulerOptions scheduler_options;
  scheduler_options.max_batch_tokens = options.max_batch_tokens;
  scheduler_options.max_sequences = options.max_sequences;
  scheduler_options.max_context_tokens = options.max_context_tokens;
  scheduler_options.prefix_cache = options.prefix_cache;
  Scheduler scheduler(scheduler_options, &pool);
  AddRequests(requests, adapters, options, scheduler);
  std::vector<DriverResult> results(requests.size());
  const absl::Time now = absl::UnixEpoch();
  while (scheduler.num_running() + scheduler.num_waiting() > 0) {
    const Batch batch = scheduler.Schedule(now);
    if (batch.empty()) {
      return absl::InternalError("the scheduler has sequences but no step");
    }
    if (options.observe) {
      options.observe(batch);
    }
    TENON_ASSIGN_OR_RETURN(const auto resolved, Resolve(batch, adapters, options));
    TENON_ASSIGN_OR_RETURN(const StepOutput output, runner.Run(batch, resolved));
    TENON_RETURN_IF_ERROR(Record(batch, output, results));
    if (options.stats != nullptr) {
      options.stats->num_chunks += std::count_if(batch.rows.begin(), batch.rows.end(),
                                                 [](const BatchRow& row) { return !row.samples; });
    }
    scheduler.Commit(batch, output.sampled, now);
    scheduler.TakeFinished();
  }
  if (options.stats != nullptr) {
    options.stats->num_preemptions += scheduler.num_preemptions();
  }
  return results;
}

}  // namespace tenon
