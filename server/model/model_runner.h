// ModelRunner: turns a Batch into tokens.
#ifndef TENON_SERVER_MODEL_MODEL_RUNNER_H_
#define TENON_SERVER_MODEL_MODEL_RUNNER_H_

#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "adapters/methods/compiled_adapter.h"
#include "server/scheduler/batch.h"
#include "server/scheduler/sampling_params.h"

namespace tenon {

/// One adapter of a segment, resident.
struct ResolvedAdapter {
  const CompiledAdapter* adapter = nullptr;
  float weight = 1.0f;
};

class MergedWeights;

/// The adapters of a segment or a context, in the order of its selection.
struct ResolvedSelection {
  std::vector<ResolvedAdapter> adapters;  ///< empty for the base
  /// The base's weights with these adapters folded in, or null. The runner may use them instead of
  /// the adapters, or not, whatever is faster; ignored for a context.
  const MergedWeights* merged = nullptr;
};

/// What one step produced.
struct StepOutput {
  std::vector<SampledToken> sampled;  ///< one per row with `samples`, in row order
  /// Empty when every row has its token; else one per entry of `sampled`. A row that is not OK
  /// (INTERNAL: its logits are NaN or leave no token to choose) has no token: its entry of
  /// `sampled` is to be ignored and its sequence ended with this error. The other rows are good.
  std::vector<absl::Status> row_status;
  /// Empty when every context row is computed; else one per context row of the batch. Users of a
  /// context whose entry is not OK (FAILED_PRECONDITION: its virtual tokens cannot be served here;
  /// INTERNAL) are to be ended with it: what their rows gave is to be ignored.
  std::vector<absl::Status> context_status;
  int64_t num_merged_tokens = 0;  ///< tokens of rows that ran on merged weights
  bool is_replay = false;         ///< the forward pass was a recorded CUDA graph
  /// For rows whose sequence asked for prompt_logprobs, in row order: entry i belongs to prompt
  /// token first_token + i + 1.
  std::vector<std::vector<SampledToken>>
      prompt_logprobs;  ///< one entry per row of the batch; empty when not asked
};

/// The forward pass and the choice of tokens. Not thread-safe (engine thread).
/// An interface because tests of the engine script it; the product's is DecoderRunner.
class ModelRunner {
 public:
  virtual ~ModelRunner() = default;

  /// Runs one step. `adapters` has one entry per segment of the batch, empty for base segments,
  /// then one per context row. Errors are the step's: INTERNAL when LibTorch throws. KV of the
  /// batch's tokens is then undefined.
  virtual absl::StatusOr<StepOutput> Run(const Batch& batch,
                                         std::span<const ResolvedSelection> adapters) = 0;
};

}  // namespace tenon

#endif  // TENON_SERVER_MODEL_MODEL_RUNNER_H_
