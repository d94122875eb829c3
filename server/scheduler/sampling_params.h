// SamplingParams: how the next token of one sequence is chosen. Validated at the API; pure data
// below it.
#ifndef TENON_SERVER_SCHEDULER_SAMPLING_PARAMS_H_
#define TENON_SERVER_SCHEDULER_SAMPLING_PARAMS_H_

#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

namespace tenon {

struct SamplingParams {
  float temperature = 1.0f;  ///< >= 0; 0 is greedy
  int32_t top_k = 0;         ///< >= 0; 0 keeps all tokens
  float top_p = 1.0f;        ///< (0, 1]; 1 keeps all tokens
  float min_p = 0.0f;        ///< [0, 1]; keeps tokens with p >= min_p * p_max; 0 keeps all
  float repetition_penalty =
      1.0f;  ///< > 0; divides positive and multiplies negative logits of seen tokens
  float presence_penalty = 0.0f;  ///< [-2, 2]; subtracted once from each generated token's logit
  float frequency_penalty =
      0.0f;  ///< [-2, 2]; subtracted per occurrence among the generated tokens
  std::vector<std::pair<int32_t, float>> logit_bias;  ///< token id -> added to its logit
  uint64_t seed = 0;  ///< every sequence has one; the API draws it when the client gave none
  std::vector<int32_t>
      stop_token_ids;       ///< end the sequence; the model's own end tokens are added by the API
  int32_t min_tokens = 0;   ///< stop tokens are masked before this many are generated
  int32_t max_tokens = 0;   ///< > 0; generated tokens at most
  bool ignore_eos = false;  ///< the model's own end tokens do not end the sequence
  std::optional<int32_t>
      logprobs;  ///< report the chosen token's log-probability and this many best ones
  std::optional<int32_t> prompt_logprobs;  ///< the same for each prompt token but the first
};

/// A token and its natural-log probability under the unmodified logits (before temperature,
/// penalties and filters).
struct TokenLogprob {
  int32_t token = 0;
  float logprob = 0.0f;
};

/// One chosen token and what was asked to be known about it.
struct SampledToken {
  int32_t token = 0;
  float logprob = 0.0f;                    ///< 0 when logprobs were not asked for
  std::vector<TokenLogprob> top_logprobs;  ///< best first
};

}  // namespace tenon

#endif  // TENON_SERVER_SCHEDULER_SAMPLING_PARAMS_H_
