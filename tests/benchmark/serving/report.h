// Report: a run in numbers, as a table and as JSON.
#ifndef TENON_TESTS_BENCHMARK_SERVING_REPORT_H_
#define TENON_TESTS_BENCHMARK_SERVING_REPORT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "nlohmann/json.hpp"
#include "tests/benchmark/serving/load_generator.h"

namespace tenon::benchmark {

struct Percentiles {
  double p50_ms = 0, p90_ms = 0, p99_ms = 0, mean_ms = 0;
};

/// Nearest-rank percentiles; all zero for no values.
Percentiles ComputePercentiles(std::vector<absl::Duration> values);

struct Report {
  int64_t num_requests = 0;
  int64_t num_failed = 0;
  int64_t output_tokens = 0;
  double wall_s = 0;
  double output_tokens_per_s = 0;
  double requests_per_s = 0;
  Percentiles first_token, inter_token, total;
  std::vector<std::string> errors;  ///< distinct messages of failed requests
};

Report MakeReport(const RunOutcome& run);

std::string ToTable(const Report& report);
nlohmann::json ToJson(const Report& report);

}  // namespace tenon::benchmark

#endif  // TENON_TESTS_BENCHMARK_SERVING_REPORT_H_
