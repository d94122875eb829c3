// Workload: the requests of a benchmark run, made before it starts so that making them is not
// measured.
#ifndef TENON_TESTS_BENCHMARK_SERVING_WORKLOAD_H_
#define TENON_TESTS_BENCHMARK_SERVING_WORKLOAD_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace tenon::benchmark {

/// One request: what is sent, and when in an open-loop run.
struct BenchmarkRequest {
  std::vector<int32_t> prompt;
  std::string text;     ///< sent instead of `prompt` unless it is empty
  std::string adapter;  ///< "" for the base
  int32_t output_tokens = 0;
  absl::Duration arrival;  ///< since the start of the run; zero in a closed loop
};

struct WorkloadOptions {
  int64_t num_requests = 128;
  int64_t prompt_tokens = 64;
  int32_t output_tokens = 64;
  int32_t vocab_size = 0;             ///< prompt ids are drawn from [0, vocab_size)
  std::vector<std::string> adapters;  ///< round robin, or by Zipf; empty: the base only
  double base_share = 0.0;            ///< [0, 1]: share of requests to the bare base
  double zipf_exponent =
      0.0;  ///< 0: round robin; else popularity of the i-th adapter ~ 1 / i^exponent
  double requests_per_second = 0.0;  ///< 0: closed loop; else Poisson arrivals at this rate
  uint64_t seed = 1;
};

/// Random prompts; the same options give the same requests.
std::vector<BenchmarkRequest> MakeWorkload(const WorkloadOptions& options);

/// Requests from a file of JSON lines {"prompt_tokens": [ids], "adapter": "", "output_tokens": n}.
/// A "prompt" is text that is sent instead of the ids; "arrival_s" is zero when it is not there.
absl::StatusOr<std::vector<BenchmarkRequest>> ReadWorkload(const std::string& path);

}  // namespace tenon::benchmark

#endif  // TENON_TESTS_BENCHMARK_SERVING_WORKLOAD_H_
