#include "tests/benchmark/serving/workload.h"

#include <cmath>
#include <fstream>
#include <random>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace tenon::benchmark {
namespace {

/// Draws the adapter of each request.
class AdapterChoice {
 public:
  explicit AdapterChoice(const WorkloadOptions& options) : options_(options) {
    std::vector<double> weights;
    for (size_t i = 0; i < options.adapters.size(); ++i) {
      weights.push_back(1.0 / std::pow(static_cast<double>(i + 1), options.zipf_exponent));
    }
    zipf_ = std::discrete_distribution<size_t>(weights.begin(), weights.end());
  }

  std::string Next(std::mt19937_64& random) {
    const bool is_base = std::bernoulli_distribution(options_.base_share)(random);
    if (is_base || options_.adapters.empty()) {
      return "";
    }
    const size_t index =
        options_.zipf_exponent > 0 ? zipf_(random) : round_robin_++ % options_.adapters.size();
    return options_.adapters[index];
  }

 private:
  const WorkloadOptions& options_;
  std::discrete_distribution<size_t> zipf_;
  size_t round_robin_ = 0;
};

}  // namespace

std::vector<BenchmarkRequest> MakeWorkload(const WorkloadOptions& options) {
  std::mt19937_64 random(options.seed);
  std::uniform_int_distribution<int32_t> token(0, options.vocab_size - 1);
  AdapterChoice choice(options);
  absl::Duration arrival;
  std::vector<BenchmarkRequest> requests;
  for (int64_t i = 0; i < options.num_requests; ++i) {
    BenchmarkRequest request;
    for (int64_t t = 0; t < options.prompt_tokens; ++t) {
      request.prompt.push_back(token(random));
    }
    request.adapter = choice.Next(random);
    request.output_tokens = options.output_tokens;
    request.arrival = arrival;
    if (options.requests_per_second > 0) {
      arrival +=
          absl::Seconds(std::exponential_distribution<>(options.requests_per_second)(random));
    }
    requests.push_back(std::move(request));
  }
  return requests;
}

absl::StatusOr<std::vector<BenchmarkRequest>> ReadWorkload(const std::string& path) {
  std::ifstream file(path);
  if (!file) {
    return absl::NotFoundError(absl::StrCat(path, ": cannot be opened"));
  }
  std::vector<BenchmarkRequest> requests;
  std::string line;
  while (std::getline(file, line)) {
    try {
      const nlohmann::json json = nlohmann::json::parse(line);
      const std::string text = json.value("prompt", "");
      requests.push_back({.prompt = text.empty()
                                        ? json.at("prompt_tokens").get<std::vector<int32_t>>()
                                        : std::vector<int32_t>(),
                          .text = text,
                          .adapter = json.at("adapter").get<std::string>(),
                          .output_tokens = json.at("output_tokens").get<int32_t>(),
                          .arrival = absl::Seconds(json.value("arrival_s", 0.0))});
    } catch (const nlohmann::json::exception& error) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ":", requests.size() + 1, ": ", error.what()));
    }
  }
  return requests;
}

}  // namespace tenon::benchmark
