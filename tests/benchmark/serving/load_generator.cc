#include "tests/benchmark/serving/load_generator.h"

#include <memory>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"

namespace tenon::benchmark {
namespace {

v1::GenerateRequest ToProto(const BenchmarkRequest& request) {
  v1::GenerateRequest proto;
  if (request.text.empty()) {
    proto.mutable_tokens()->mutable_ids()->Add(request.prompt.begin(), request.prompt.end());
  } else {
    proto.set_prompt(request.text);
  }
  proto.set_adapter(request.adapter);
  proto.mutable_sampling()->set_temperature(0);
  proto.mutable_stopping()->set_max_tokens(request.output_tokens);
  proto.mutable_stopping()->set_ignore_eos(true);
  proto.mutable_output()->set_token_ids(true);
  return proto;
}

/// One request on its way to its outcome.
class Flight {
 public:
  Flight(RequestOutcome* outcome, absl::Time start, absl::Time sent)
      : outcome_(outcome), start_(start), sent_(sent), last_(sent) {
    outcome_->sent = sent - start;
  }

  void Note(const v1::GenerateResponse& response) {
    const absl::Time now = absl::Now();
    const int count = response.token_ids_size();
    for (int i = 0; i < count; ++i) {
      if (outcome_->tokens.empty()) {
        outcome_->first_token = now - sent_;
      } else {
        outcome_->inter_token.push_back((now - last_) / count);
      }
      outcome_->tokens.push_back(response.token_ids(i));
      outcome_->token_times.push_back(now - start_);
    }
    last_ = count > 0 ? now : last_;
  }
  void End(absl::Status status) {
    outcome_->status = std::move(status);
    outcome_->total = absl::Now() - sent_;
  }

 private:
  RequestOutcome* const outcome_;
  const absl::Time start_, sent_;
  absl::Time last_;
};

/// How many requests are in flight.
class InFlight {
 public:
  void Add() {
    absl::MutexLock lock(&mutex_);
    ++count_;
  }
  void Remove() {
    absl::MutexLock lock(&mutex_);
    --count_;
  }
  void WaitForLessThan(int count) {
    absl::MutexLock lock(&mutex_);
    const auto is_less = [&]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) { return count_ < count; };
    mutex_.Await(absl::Condition(&is_less));
  }

 private:
  absl::Mutex mutex_;
  int count_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace

RunOutcome RunWorkload(const Client& client, const std::vector<BenchmarkRequest>& requests,
                       int concurrency) {
  RunOutcome run;
  run.requests.resize(requests.size());
  InFlight in_flight;
  const absl::Time start = absl::Now();
  for (size_t i = 0; i < requests.size(); ++i) {
    const absl::Time arrival = start + requests[i].arrival;
    absl::SleepFor(arrival - absl::Now());  // returns at once when that is past
    in_flight.WaitForLessThan(concurrency);
    in_flight.Add();
    const bool open_loop = requests[i].arrival > absl::ZeroDuration();
    const auto flight =
        std::make_shared<Flight>(&run.requests[i], start, open_loop ? arrival : absl::Now());
    client.StartGenerate(
        ToProto(requests[i]),
        [flight](const v1::GenerateResponse& response) {
          flight->Note(response);
          return true;
        },
        [flight, &in_flight](absl::Status status) {
          flight->End(std::move(status));
          in_flight.Remove();
        });
  }
  in_flight.WaitForLessThan(1);
  run.wall = absl::Now() - start;
  return run;
}

}  // namespace tenon::benchmark
