// LoadGenerator: sends a workload over real gRPC and notes when each token arrived.
#ifndef TENON_TESTS_BENCHMARK_SERVING_LOAD_GENERATOR_H_
#define TENON_TESTS_BENCHMARK_SERVING_LOAD_GENERATOR_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "client/cpp/client.h"
#include "tests/benchmark/serving/workload.h"

namespace tenon::benchmark {

/// What happened to one request.
struct RequestOutcome {
  absl::Status status;
  absl::Duration
      first_token;       ///< since it was sent, or since it should have been sent in an open loop
  absl::Duration total;  ///< the same, to the last message
  absl::Duration sent;   ///< since the run began; in an open loop when it should have been
  std::vector<absl::Duration> token_times;  ///< one a token, since the run began
  std::vector<absl::Duration>
      inter_token;  ///< one a token but the first; tokens of one message share its gap
  std::vector<int32_t> tokens;
};

struct RunOutcome {
  std::vector<RequestOutcome> requests;  ///< in the workload's order
  absl::Duration wall;                   ///< from the start to the last request's end
};

/// Runs the workload with at most `concurrency` requests in flight, all on gRPC's threads. In an
/// open loop (arrivals given) a request that comes when so many are in flight waits for the end of
/// one, and that wait counts as its latency.
RunOutcome RunWorkload(const Client& client, const std::vector<BenchmarkRequest>& requests,
                       int concurrency);

}  // namespace tenon::benchmark

#endif  // TENON_TESTS_BENCHMARK_SERVING_LOAD_GENERATOR_H_
