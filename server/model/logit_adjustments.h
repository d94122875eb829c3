// LogitAdjustments: what a request's parameters do to single logits, as a list.
#ifndef TENON_SERVER_MODEL_LOGIT_ADJUSTMENTS_H_
#define TENON_SERVER_MODEL_LOGIT_ADJUSTMENTS_H_

#include <cstdint>
#include <span>
#include <vector>

#include "server/kernels/cuda_ops.h"
#include "server/scheduler/sampling_params.h"

namespace tenon {

/// What the choice of a token depends on, apart from the logits.
struct SamplingContext {
  const SamplingParams* params = nullptr;  ///< never null
  std::span<const int32_t> tokens;         ///< prompt, then generated tokens
  int64_t num_prompt_tokens = 0;
  int32_t sample_index = 0;  ///< separates the n samples of one request and seed

  int64_t num_generated() const { return static_cast<int64_t>(tokens.size()) - num_prompt_tokens; }
};

/// Steps 1 to 4 of Sampler for rows of logits: an entry for each logit that changes, so that they
/// can be applied where the logits are.
///
/// Not thread-safe: keeps 4 bytes per vocabulary entry.
///
///   adjustments.Clear();
///   adjustments.Add(0, context);
///   for (const cuda::LogitAdjustment& entry : adjustments.entries()) ...
class LogitAdjustments {
 public:
  explicit LogitAdjustments(int64_t vocab_size);

  void Clear() { entries_.clear(); }
  /// Appends the entries of one row, each of another token. Ids that are not in the vocabulary are
  /// left out of logit_bias and stop_token_ids; `tokens` has none. An entry without effect is
  /// possible.
  void Add(int32_t row, const SamplingContext& context);

  std::span<const cuda::LogitAdjustment> entries() const { return entries_; }

 private:
  bool InVocabulary(int32_t token) const;
  /// The entry of a token in the row that is being added, which begins at entry row_begin.
  cuda::LogitAdjustment& Find(int32_t row, size_t row_begin, int32_t token);
  void AddPenalties(int32_t row, size_t row_begin, const SamplingContext& context);

  std::vector<cuda::LogitAdjustment> entries_;
  /// [vocab_size]: 1 + the index of a token's entry in the row, 0 for none and between calls.
  std::vector<int32_t> positions_;
};

}  // namespace tenon

#endif  // TENON_SERVER_MODEL_LOGIT_ADJUSTMENTS_H_
