#include "tests/benchmark/serving/report.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "absl/strings/str_format.h"

namespace tenon::benchmark {
namespace {

std::string Row(const char* name, const Percentiles& p) {
  return absl::StrFormat("  %-22s %9.1f %9.1f %9.1f %9.1f\n", name, p.mean_ms, p.p50_ms, p.p90_ms,
                         p.p99_ms);
}

nlohmann::json ToJson(const Percentiles& p) {
  return {{"mean_ms", p.mean_ms}, {"p50_ms", p.p50_ms}, {"p90_ms", p.p90_ms}, {"p99_ms", p.p99_ms}};
}

}  // namespace

Percentiles ComputePercentiles(std::vector<absl::Duration> values) {
  if (values.empty()) {
    return {};
  }
  std::sort(values.begin(), values.end());
  const auto at = [&](double quantile) {
    const auto rank = static_cast<size_t>(std::ceil(quantile * static_cast<double>(values.size())));
    return absl::ToDoubleMilliseconds(values[std::max<size_t>(rank, 1) - 1]);
  };
  absl::Duration sum;
  for (const absl::Duration value : values) {
    sum += value;
  }
  return {at(0.5), at(0.9), at(0.99),
          absl::ToDoubleMilliseconds(sum) / static_cast<double>(values.size())};
}

Report MakeReport(const RunOutcome& run) {
  Report report;
  std::vector<absl::Duration> first_token, inter_token, total;
  std::set<std::string> errors;
  for (const RequestOutcome& request : run.requests) {
    ++report.num_requests;
    report.output_tokens += static_cast<int64_t>(request.tokens.size());
    if (!request.status.ok()) {
      ++report.num_failed;
      errors.insert(request.status.ToString());
      continue;
    }
    first_token.push_back(request.first_token);
    inter_token.insert(inter_token.end(), request.inter_token.begin(), request.inter_token.end());
    total.push_back(request.total);
  }
  report.wall_s = absl::ToDoubleSeconds(run.wall);
  report.output_tokens_per_s = static_cast<double>(report.output_tokens) / report.wall_s;
  report.requests_per_s =
      static_cast<double>(report.num_requests - report.num_failed) / report.wall_s;
  report.first_token = ComputePercentiles(std::move(first_token));
  report.inter_token = ComputePercentiles(std::move(inter_token));
  report.total = ComputePercentiles(std::move(total));
  report.errors.assign(errors.begin(), errors.end());
  return report;
}

std::string ToTable(const Report& report) {
  std::string table = absl::StrFormat(
      "  %d requests, %d failed, %d tokens in %.2f s: %.1f tokens/s, %.2f requests/s\n",
      report.num_requests, report.num_failed, report.output_tokens, report.wall_s,
      report.output_tokens_per_s, report.requests_per_s);
  absl::StrAppendFormat(&table, "  %-22s %9s %9s %9s %9s\n", "ms", "mean", "p50", "p90", "p99");
  table += Row("time to first token", report.first_token);
  table += Row("between tokens", report.inter_token);
  table += Row("whole request", report.total);
  for (const std::string& error : report.errors) {
    absl::StrAppendFormat(&table, "  failed with: %s\n", error);
  }
  return table;
}

nlohmann::json ToJson(const Report& report) {
  return {{"requests", report.num_requests},
          {"failed", report.num_failed},
          {"output_tokens", report.output_tokens},
          {"wall_s", report.wall_s},
          {"output_tokens_per_s", report.output_tokens_per_s},
          {"requests_per_s", report.requests_per_s},
          {"time_to_first_token", ToJson(report.first_token)},
          {"between_tokens", ToJson(report.inter_token)},
          {"request", ToJson(report.total)},
          {"errors", report.errors}};
}

}  // namespace tenon::benchmark
