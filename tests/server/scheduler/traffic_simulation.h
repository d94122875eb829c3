// TrafficSimulation: a scheduler under the traffic of many tenants, on a clock that steps push on.
#ifndef TENON_TESTS_SERVER_SCHEDULER_TRAFFIC_SIMULATION_H_
#define TENON_TESTS_SERVER_SCHEDULER_TRAFFIC_SIMULATION_H_

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "server/scheduler/scheduler.h"
#include "tests/server/scheduler/scheduler_fixture.h"

namespace tenon {

/// Requests of one kind. Arrivals are Poisson.
struct TrafficClass {
  std::string tenant;
  double requests_per_second = 0;
  int64_t prompt_tokens = 32;
  int32_t max_tokens = 32;
  double weight = 1;
  int64_t kv_percent = 0;
  int32_t priority = 0;
  std::string adapter;
  absl::Duration begin;                                ///< of its first arrivals
  absl::Duration deadline = absl::InfiniteDuration();  ///< after the arrival
};

/// What became of it within the measured time.
struct TrafficResult {
  std::vector<double> ttft_seconds;
  int64_t generated_tokens = 0;
  int64_t num_late = 0;                          ///< LateSequences
  std::vector<std::pair<double, double>> waits;  ///< expected on arrival, and what they were
};

/// A step takes a fixed time and one for each of its tokens, as on a device that reads all weights
/// once a step.
class TrafficSimulation {
 public:
  struct Options {
    SchedulerOptions scheduler;
    int64_t num_blocks = 4096;
    int64_t max_queued = 200;  ///< of one tenant; a client that finds it full goes away
    absl::Duration step = absl::Milliseconds(2);
    absl::Duration per_token = absl::Microseconds(50);
    absl::Duration warm_up = absl::Seconds(5);
    absl::Duration measured = absl::Seconds(20);
  };

  static SchedulerOptions SchedulerDefaults(bool fair) {
    SchedulerOptions options;
    options.max_batch_tokens = 256;
    options.max_sequences = 32;
    options.max_context_tokens = 1024;
    options.prefix_cache = false;
    options.fair = fair;
    return options;
  }

  TrafficSimulation(Options options, std::vector<TrafficClass> classes)
      : options_(std::move(options)), pool_(options_.num_blocks, 16) {
    scheduler_ = std::make_unique<Scheduler>(options_.scheduler, &pool_);
    for (TrafficClass& kind : classes) {
      const uint64_t seed = 7 * sources_.size() + 1;  // the same arrivals, whoever else comes
      sources_.push_back({std::move(kind), std::mt19937_64(seed), absl::UnixEpoch(), {}, 0});
      sources_.back().next = absl::UnixEpoch() + sources_.back().kind.begin;
      Advance(sources_.back());
    }
  }

  void Run() {
    const absl::Time end = absl::UnixEpoch() + options_.warm_up + options_.measured;
    while (now_ < end) {
      Arrive();
      EndLate();
      const Batch batch = scheduler_->Schedule(now_);
      if (batch.empty()) {
        now_ += options_.step;
        continue;
      }
      NoteStarts(batch);
      now_ += options_.step + options_.per_token * batch.num_tokens;
      num_computed_tokens_ += batch.num_tokens;
      Commit(batch);
      scheduler_->TakeFinished();
    }
  }

  const TrafficResult& result(size_t index) const { return sources_[index].result; }
  int64_t total_generated_tokens() const {
    int64_t total = 0;
    for (const Source& source : sources_) {
      total += source.result.generated_tokens;
    }
    return total;
  }
  double seconds() const { return absl::ToDoubleSeconds(options_.measured); }
  int64_t num_preemptions() const { return scheduler_->num_preemptions(); }
  int64_t num_computed_tokens() const { return num_computed_tokens_; }

 private:
  struct Source {
    TrafficClass kind;
    std::mt19937_64 random;
    absl::Time next;
    TrafficResult result;
    int64_t num_waiting = 0;
  };
  struct Origin {
    size_t source;
    double expected_wait;
    bool started = false;
  };

  static void Advance(Source& source) {
    if (source.kind.requests_per_second == 0) {
      source.next = absl::InfiniteFuture();
      return;
    }
    std::exponential_distribution<double> gap(source.kind.requests_per_second);
    source.next += absl::Seconds(gap(source.random));
  }

  void Arrive() {
    for (size_t i = 0; i < sources_.size(); ++i) {
      for (Source& source = sources_[i]; source.next <= now_; Advance(source)) {
        const TrafficClass& kind = source.kind;
        if (source.num_waiting >= options_.max_queued) {
          continue;
        }
        ++source.num_waiting;
        Sequence::Options options =
            SequenceOptions(next_id_, Tokens(kind.prompt_tokens), kind.max_tokens, kind.adapter);
        options.tenant = kind.tenant;
        options.arrival = source.next;
        options.share = {.weight = kind.weight, .kv_percent = kind.kv_percent};
        options.priority = kind.priority;
        options.deadline = source.next + kind.deadline;
        const absl::Duration wait = scheduler_->ExpectedWait(kind.tenant, now_);
        origins_[next_id_++] = {i, absl::ToDoubleSeconds(wait), false};
        scheduler_->Add(std::make_unique<Sequence>(std::move(options)));
      }
    }
  }

  void EndLate() {
    for (const Scheduler::LateSequence& late : scheduler_->LateSequences(now_)) {
      Source& source = sources_[origins_.at(late.id).source];
      ++source.result.num_late;
      --source.num_waiting;
      scheduler_->Finish(late.id, FinishReason::kDeadline, now_);
    }
  }

  void NoteStarts(const Batch& batch) {
    for (const BatchRow& row : batch.rows) {
      Origin& origin = origins_.at(row.sequence->id());
      if (std::exchange(origin.started, true)) {
        continue;
      }
      --sources_[origin.source].num_waiting;
      if (InWindow()) {
        sources_[origin.source].result.waits.emplace_back(
            origin.expected_wait, absl::ToDoubleSeconds(now_ - row.sequence->arrival()));
      }
    }
  }

  void Commit(const Batch& batch) {
    std::vector<SampledToken> sampled;
    for (const BatchRow& row : batch.rows) {
      if (!row.samples) {
        continue;
      }
      sampled.push_back({.token = 7, .logprob = 0, .top_logprobs = {}});
      TrafficResult& result = sources_[origins_.at(row.sequence->id()).source].result;
      if (InWindow()) {
        ++result.generated_tokens;
        if (row.sequence->num_generated_tokens() == 0) {
          result.ttft_seconds.push_back(absl::ToDoubleSeconds(now_ - row.sequence->arrival()));
        }
      }
    }
    scheduler_->Commit(batch, sampled, now_);
  }

  bool InWindow() const { return now_ >= absl::UnixEpoch() + options_.warm_up; }

  const Options options_;
  BlockPool pool_;
  std::unique_ptr<Scheduler> scheduler_;
  std::vector<Source> sources_;
  std::map<SequenceId, Origin> origins_;
  absl::Time now_ = absl::UnixEpoch();
  SequenceId next_id_ = 1;
  int64_t num_computed_tokens_ = 0;
};

/// The value below which that part of the sample lies.
inline double Percentile(std::vector<double> sample, double part) {
  std::sort(sample.begin(), sample.end());
  return sample.empty()
             ? 0
             : sample[static_cast<size_t>(part * static_cast<double>(sample.size() - 1))];
}

}  // namespace tenon

#endif  // TENON_TESTS_SERVER_SCHEDULER_TRAFFIC_SIMULATION_H_
