#include "tests/golden/golden_run.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace tenon {

DriverRequest GreedyRequest(const GoldenCase& golden, int64_t vocab_size) {
  DriverRequest request;
  request.adapter = golden.adapter;
  request.selection = golden.selection;
  request.prompt = golden.prompt;
  request.sampling.temperature = 0;
  request.sampling.max_tokens = static_cast<int32_t>(golden.tokens.size());
  if (!golden.logprobs.empty()) {
    request.sampling.logprobs = static_cast<int32_t>(vocab_size);
  }
  return request;
}

float LargestDifference(const SampledToken& step, const std::vector<float>& golden) {
  float largest = 0;
  for (const TokenLogprob& top : step.top_logprobs) {
    largest = std::max(largest, std::abs(top.logprob - golden[top.token]));
  }
  return largest;
}

float LargestDifference(const GoldenCase& golden, const DriverResult& result) {
  float largest = 0;
  for (size_t step = 0; step < golden.logprobs.size(); ++step) {
    largest = std::max(largest, LargestDifference(result.steps[step], golden.logprobs[step]));
  }
  return largest;
}

bool ComputedAnotherWay(const std::string& method) {
  return method == "dora-last" || method == "dora-twice" || method == "dora-scaled";
}

}  // namespace tenon
