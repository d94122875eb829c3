#include "tests/benchmark/serving/load_generator.h"

#include <atomic>
#include <thread>

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

/// `start` is when the run began.
RequestOutcome RunOne(const Client& client, const BenchmarkRequest& request, absl::Time start,
                      absl::Time sent) {
  RequestOutcome outcome;
  outcome.sent = sent - start;
  absl::Time last = sent;
  outcome.status = client.Generate(ToProto(request), [&](const v1::GenerateResponse& response) {
    const absl::Time now = absl::Now();
    const int count = response.token_ids_size();
    for (int i = 0; i < count; ++i) {
      if (outcome.tokens.empty()) {
        outcome.first_token = now - sent;
      } else {
        outcome.inter_token.push_back((now - last) / count);
      }
      outcome.tokens.push_back(response.token_ids(i));
      outcome.token_times.push_back(now - start);
    }
    last = count > 0 ? now : last;
    return true;
  });
  outcome.total = absl::Now() - sent;
  return outcome;
}

}  // namespace

RunOutcome RunWorkload(const Client& client, const std::vector<BenchmarkRequest>& requests,
                       int concurrency) {
  RunOutcome run;
  run.requests.resize(requests.size());
  std::atomic<size_t> next = 0;
  const absl::Time start = absl::Now();
  const auto work = [&] {
    for (size_t i = next++; i < requests.size(); i = next++) {
      const bool open_loop = requests[i].arrival > absl::ZeroDuration();
      absl::SleepFor(start + requests[i].arrival -
                     absl::Now());  // returns at once when that is past
      run.requests[i] =
          RunOne(client, requests[i], start, open_loop ? start + requests[i].arrival : absl::Now());
    }
  };
  std::vector<std::thread> threads;
  for (int i = 0; i < concurrency; ++i) {
    threads.emplace_back(work);
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  run.wall = absl::Now() - start;
  return run;
}

}  // namespace tenon::benchmark
