// StepDriver: scheduler and runner in a loop, without the engine's threads.
#ifndef TENON_TESTS_GOLDEN_STEP_DRIVER_H_
#define TENON_TESTS_GOLDEN_STEP_DRIVER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "adapters/methods/compiled_adapter.h"
#include "server/model/model_runner.h"
#include "server/scheduler/scheduler.h"

namespace tenon {

/// One generation to run: `adapter` is a key of the adapters given, or "" for the base.
struct DriverRequest {
  std::string adapter;
  /// In place of `adapter`: several, with their weights.
  std::vector<std::pair<std::string, float>> selection;
  std::vector<int32_t> prompt;
  SamplingParams sampling;
};

/// What it produced, one entry per generated token.
struct DriverResult {
  std::vector<SampledToken> steps;
  std::vector<SampledToken> prompt_logprobs;

  std::vector<int32_t> tokens() const;
};

/// What happened on the way, summed over calls.
struct DriverStats {
  int64_t num_preemptions = 0;
  int64_t num_chunks = 0;  ///< rows that did not reach the last token of their prompt
};

struct DriverOptions {
  int64_t num_blocks = 256;
  int64_t block_size = 16;
  int64_t max_batch_tokens = 512;
  int64_t max_sequences = 64;
  int64_t max_context_tokens = 2048;
  bool prefix_cache = false;
  DriverStats* stats = nullptr;               ///< borrowed; may be null
  std::function<void(const Batch&)> observe;  ///< sees every step before it runs; may be empty
  /// The merged weights of a selection, or null; empty: none has any.
  std::function<const MergedWeights*(const AdapterSelection&)> merged;
};

using AdapterMap = std::map<std::string, std::shared_ptr<const CompiledAdapter>>;

/// Runs all requests together to their ends. The runner's KV cache has the options' blocks.
absl::StatusOr<std::vector<DriverResult>> RunTogether(ModelRunner& runner,
                                                      const AdapterMap& adapters,
                                                      const std::vector<DriverRequest>& requests,
                                                      const DriverOptions& options);

}  // namespace tenon

#endif  // TENON_TESTS_GOLDEN_STEP_DRIVER_H_
