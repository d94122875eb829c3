// Sampler: from one row of logits to one token.
#ifndef TENON_SERVER_MODEL_SAMPLER_H_
#define TENON_SERVER_MODEL_SAMPLER_H_

#include <cstdint>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "server/model/logit_adjustments.h"
#include "server/scheduler/sampling_params.h"

namespace tenon {

/// Chooses tokens, row by row: nothing of one row reaches another, and the random number is a
/// function of (seed, sample_index, index of the generated token). The same logits thus give the
/// same token in any batch, and again after a preemption.
///
/// The order is that of Hugging Face's generate() (GenerationMixin._get_logits_processor):
///   1. logit_bias
///   2. repetition_penalty over prompt and generated tokens (CTRL, arXiv:1909.05858)
///   3. presence_penalty and frequency_penalty over generated tokens (OpenAI's, absent there)
///   4. stop tokens masked while fewer than min_tokens are generated
///   5. greedy (temperature 0): the largest, the lowest id of equals; otherwise
///   6. temperature
///   7. top_k: what is below the k-th largest goes; equals of the k-th stay
///   8. top_p: of the tokens in falling order (lower ids first among equals) one goes when those
///      before it have top_p or more of the mass
///   9. min_p: what has less than min_p times the largest probability goes
/// The draw inverts the cumulative distribution of what is left in order of token ids.
///
/// Not thread-safe: keeps scratch memory of up to 24 bytes per vocabulary entry.
class Sampler {
 public:
  explicit Sampler(int64_t vocab_size);

  /// logits [vocab_size], unmodified. INTERNAL when one is NaN or +inf, or when no token is left.
  absl::StatusOr<SampledToken> Sample(std::span<const float> logits,
                                      const SamplingContext& context);

  /// The random number of the draw, in [0, 1).
  static double Uniform(const SamplingContext& context);

  /// The log-probability of `token` and of the `num_top` best ones under the unmodified logits;
  /// equal ones by rising id.
  static SampledToken Score(std::span<const float> logits, int32_t token, int32_t num_top);

 private:
  struct Candidate {
    int32_t token = 0;
    float score = 0.0f;   // <= 0, the best one's is 0
    float weight = 0.0f;  // exp(score)
  };

  /// Steps 1 to 9 on a copy of the logits.
  absl::StatusOr<int32_t> Adjust(std::span<const float> logits, const SamplingContext& context);
  absl::StatusOr<int32_t> Choose(const SamplingContext& context);

  /// Makes candidates_ of the unmasked tokens with at least this score, in order of their ids.
  void Collect(float threshold);
  /// The same of the tokens that top_k keeps; of a superset of those that top_p keeps.
  void CollectTopK(int64_t k);
  void CollectMass(double mass);
  void KeepTopP(double mass);
  void KeepMinP(float min_p);
  double CandidateMass() const;
  int32_t Draw(double uniform) const;

  std::vector<float> scores_;   // [vocab_size]
  std::vector<float> weights_;  // [vocab_size]
  LogitAdjustments adjustments_;
  std::vector<Candidate> candidates_;
};

}  // namespace tenon

#endif  // TENON_SERVER_MODEL_SAMPLER_H_
