// EngineLoop: how sequences end, and what is told of the engine then.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/engine/engine_loop.h"

namespace tenon {
namespace {

// Weight of the newest observation in the moving average of the time between two ends.
constexpr double kNewestWeight = 0.2;

}  // namespace

void EngineLoop::Fail(SequenceId id, const absl::Status& error, absl::Time now) {
  if (scheduler_.Find(id) != nullptr) {
    active_.at(id).error = error;
    scheduler_.Finish(id, FinishReason::kError, now);
  }
}

bool EngineLoop::DeliverFinished(absl::Time now) {
  const std::vector<std::unique_ptr<Sequence>> finished = scheduler_.TakeFinished();
  CountEnded(static_cast<int64_t>(finished.size()), now);
  if (!finished.empty()) {
    Report({});  // who sees an answer's end finds it counted
  }
  SequenceCounts ended;
  for (const std::unique_ptr<Sequence>& sequence : finished) {
    const auto active = active_.find(sequence->id());
    const absl::Status status = EndStatus(*sequence, active->second.error);
    active->second.request->stream->Push(
        FinishEvent{.sample_index = sequence->sample_index(),
                    .reason = sequence->finish_reason(),
                    .status = status,
                    .num_prompt_tokens = sequence->num_prompt_tokens(),
                    .num_cached_tokens = sequence->num_cached_tokens(),
                    .num_generated_tokens = sequence->num_generated_tokens(),
                    .timings = sequence->timings(),
                    .device_time = active->second.device_time});
    ++ended[sequence->tenant()];
    if (options_.on_finish) {
      options_.on_finish(*sequence, status);
    }
    active_.erase(active);
  }
  Report(ended);  // Drain waits for it: after the last event
  return !finished.empty();
}

void EngineLoop::CountEnded(int64_t count, absl::Time now) {
  if (count > 0) {
    const absl::Duration newest = std::max(now - last_end_, absl::ZeroDuration()) / count;
    if (last_end_ != absl::InfinitePast()) {
      time_per_sequence_ = newest * kNewestWeight + time_per_sequence_ * (1.0 - kNewestWeight);
    }
    last_end_ = now;
  }
  num_ended_ += count;
}

absl::Status EngineLoop::EndStatus(const Sequence& sequence, const absl::Status& error) const {
  switch (sequence.finish_reason()) {
    case FinishReason::kError:
      return error;
    case FinishReason::kCancelled:
      return absl::CancelledError(absl::StrCat("request ", sequence.request_id(),
                                               " was cancelled after ",
                                               sequence.num_generated_tokens(), " tokens"));
    case FinishReason::kDeadline:
      return absl::DeadlineExceededError(absl::StrCat("request ", sequence.request_id(),
                                                      " reached its deadline after ",
                                                      sequence.num_generated_tokens(), " tokens"));
    default:
      return absl::OkStatus();
  }
}

void EngineLoop::Report(const SequenceCounts& ended) {
  stats_.num_running = scheduler_.num_running();
  stats_.num_waiting = scheduler_.num_waiting();
  stats_.kv_blocks_used = pool_.num_used();
  stats_.kv_blocks_cached = pool_.num_cached();
  stats_.num_preemptions = scheduler_.num_preemptions();
  UpdateAdapterNames();
  inbox_->Report(stats_, ended, time_per_sequence_);
}

void EngineLoop::UpdateAdapterNames() {
  // Running sequences only become more as long as none ends and none is preempted.
  const std::tuple<int64_t, int64_t, int64_t, int64_t> membership(
      stats_.num_running, stats_.num_waiting, num_ended_, stats_.num_preemptions);
  if (std::exchange(membership_, membership) == membership) {
    return;
  }
  stats_.running_adapters.clear();
  stats_.waiting_adapters.clear();
  int64_t index = 0;
  for (const Sequence* sequence : scheduler_.sequences()) {
    std::vector<std::string>& names =
        index++ < stats_.num_running ? stats_.running_adapters : stats_.waiting_adapters;
    const std::vector<std::string>& mine = active_.at(sequence->id()).request->adapter_names;
    names.insert(names.end(), mine.begin(), mine.end());
  }
  for (std::vector<std::string>* names : {&stats_.running_adapters, &stats_.waiting_adapters}) {
    std::sort(names->begin(), names->end());
    names->erase(std::unique(names->begin(), names->end()), names->end());
  }
}

}  // namespace tenon
