#include "server/model/sampler.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "adapters/base/status_macros.h"
#include "server/model/philox.h"

namespace tenon {
namespace {

constexpr float kMasked = -std::numeric_limits<float>::infinity();
constexpr size_t kFirstTopPSelection = 64;

absl::Status CheckLogits(std::span<const float> logits) {
  for (size_t token = 0; token < logits.size(); ++token) {
    // -inf is a masked token; NaN and +inf come from weights that overflow or are damaged.
    if (!(logits[token] <= std::numeric_limits<float>::max())) {
      return absl::InternalError(
          absl::StrCat("the model's logit of token ", token, " is ", logits[token]));
    }
  }
  return absl::OkStatus();
}

// log(sum(exp(logits))), accumulated in double in order of the ids.
double LogSumExp(std::span<const float> logits) {
  const float largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) {
    sum += std::exp(static_cast<double>(logit) - largest);
  }
  return largest + std::log(sum);
}

double Weight(float logit, float largest) { return std::exp(static_cast<double>(logit) - largest); }

}  // namespace

Sampler::Sampler(int64_t vocab_size) : scores_(vocab_size), counts_(vocab_size) {}

SampledToken Sampler::Score(std::span<const float> logits, int32_t token, int32_t num_top) {
  const double normalizer = LogSumExp(logits);
  SampledToken scored;
  scored.token = token;
  scored.logprob = static_cast<float>(logits[token] - normalizer);
  const size_t count = std::min(logits.size(), static_cast<size_t>(std::max(num_top, 0)));
  if (count == 0) {
    return scored;
  }
  std::vector<int32_t> ids(logits.size());
  std::iota(ids.begin(), ids.end(), 0);
  std::partial_sort(ids.begin(), ids.begin() + static_cast<int64_t>(count), ids.end(),
                    [logits](int32_t a, int32_t b) {
                      return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
                    });
  for (size_t i = 0; i < count; ++i) {
    scored.top_logprobs.push_back({ids[i], static_cast<float>(logits[ids[i]] - normalizer)});
  }
  return scored;
}

void Sampler::ApplyPenalties(const SamplingContext& context) {
  const SamplingParams& params = *context.params;
  const bool repetition = params.repetition_penalty != 1.0f;
  const bool counted = params.presence_penalty != 0.0f || params.frequency_penalty != 0.0f;
  if (!repetition && !counted) {
    return;
  }
  const std::span<const int32_t> generated = context.tokens.subspan(context.num_prompt_tokens);
  for (const int32_t token : generated) {
    ++counts_[token];
  }
  constexpr int32_t kPenalized = std::numeric_limits<int32_t>::min();  // this token was dealt with
  for (const int32_t token : repetition ? context.tokens : generated) {
    if (counts_[token] == kPenalized) {
      continue;
    }
    float& score = scores_[token];
    if (repetition) {
      score = score < 0 ? score * params.repetition_penalty : score / params.repetition_penalty;
    }
    if (counts_[token] > 0) {
      score -=
          params.presence_penalty + params.frequency_penalty * static_cast<float>(counts_[token]);
    }
    counts_[token] = kPenalized;
  }
  for (const int32_t token : context.tokens) {
    counts_[token] = 0;
  }
}

void Sampler::MaskStopTokens(const SamplingContext& context) {
  const int64_t generated = static_cast<int64_t>(context.tokens.size()) - context.num_prompt_tokens;
  if (generated >= context.params->min_tokens) {
    return;
  }
  for (const int32_t token : context.params->stop_token_ids) {
    if (token >= 0 && token < static_cast<int64_t>(scores_.size())) {
      scores_[token] = kMasked;
    }
  }
}

std::vector<Sampler::Candidate> Sampler::TopK(int32_t k) const {
  float threshold = kMasked;
  if (k > 0 && k < static_cast<int64_t>(scores_.size())) {
    std::vector<float> sorted = scores_;
    std::nth_element(sorted.begin(), sorted.begin() + (k - 1), sorted.end(), std::greater<>());
    threshold = sorted[k - 1];
  }
  std::vector<Candidate> candidates;
  for (size_t token = 0; token < scores_.size(); ++token) {
    if (scores_[token] >= threshold && scores_[token] > kMasked) {
      candidates.push_back({static_cast<int32_t>(token), scores_[token]});
    }
  }
  return candidates;
}

void Sampler::KeepTopP(double top_p, float largest, std::vector<Candidate>& candidates) {
  double total = 0;
  for (const Candidate& candidate : candidates) {
    total += Weight(candidate.logit, largest);
  }
  const auto better = [](const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
  };
  // Only as much of the order as the mass needs: the best 64, then twice as many, and so on.
  size_t kept = 0;
  size_t sorted = 0;
  double mass = 0;
  while (kept < candidates.size() && mass < top_p * total) {
    if (kept == sorted) {
      sorted = std::min(candidates.size(), std::max(kFirstTopPSelection, 2 * sorted));
      const auto begin = candidates.begin() + static_cast<int64_t>(kept);
      const auto end = candidates.begin() + static_cast<int64_t>(sorted);
      std::nth_element(begin, end - 1, candidates.end(), better);
      std::sort(begin, end, better);
    }
    mass += Weight(candidates[kept].logit, largest);
    ++kept;
  }
  candidates.resize(std::max<size_t>(kept, 1));
  std::sort(candidates.begin(), candidates.end(),
            [](const Candidate& a, const Candidate& b) { return a.token < b.token; });
}

void Sampler::KeepMinP(double min_p, float largest, std::vector<Candidate>& candidates) {
  std::erase_if(candidates, [min_p, largest](const Candidate& candidate) {
    return Weight(candidate.logit, largest) < min_p;
  });
}

int32_t Sampler::Draw(const std::vector<Candidate>& candidates, float largest, double uniform) {
  double total = 0;
  for (const Candidate& candidate : candidates) {
    total += Weight(candidate.logit, largest);
  }
  const double target = uniform * total;
  double cumulative = 0;
  for (const Candidate& candidate : candidates) {
    cumulative += Weight(candidate.logit, largest);
    if (cumulative > target) {
      return candidate.token;
    }
  }
  return candidates.back()
      .token;  // the sums are the same, so only a rounding of `target` gets here
}

absl::StatusOr<int32_t> Sampler::Choose(const SamplingContext& context) {
  const SamplingParams& params = *context.params;
  const auto best = std::max_element(scores_.begin(), scores_.end());  // the first of equals
  if (!(*best > kMasked)) {
    return absl::InternalError("no token is left to choose from");
  }
  if (params.temperature == 0.0f) {
    return static_cast<int32_t>(best - scores_.begin());
  }
  // Measured from the best, so that no temperature, however small, overflows.
  const float best_score = *best;
  for (float& score : scores_) {
    score = (score - best_score) / params.temperature;
  }
  constexpr float largest = 0.0f;
  std::vector<Candidate> candidates = TopK(params.top_k);
  if (params.top_p < 1.0f) {
    KeepTopP(params.top_p, largest, candidates);
  }
  if (params.min_p > 0.0f) {
    KeepMinP(params.min_p, largest, candidates);
  }
  const uint64_t index = context.tokens.size() - static_cast<uint64_t>(context.num_prompt_tokens);
  return Draw(candidates, largest,
              PhiloxUniform(params.seed, static_cast<uint32_t>(context.sample_index), index));
}

absl::StatusOr<SampledToken> Sampler::Sample(std::span<const float> logits,
                                             const SamplingContext& context) {
  TENON_RETURN_IF_ERROR(CheckLogits(logits));
  scores_.assign(logits.begin(), logits.end());
  for (const auto& [token, bias] : context.params->logit_bias) {
    if (token >= 0 && token < static_cast<int64_t>(scores_.size())) {
      scores_[token] += bias;
    }
  }
  ApplyPenalties(context);
  MaskStopTokens(context);
  TENON_ASSIGN_OR_RETURN(const int32_t token, Choose(context));
  if (context.params->logprobs.has_value()) {
    return Score(logits, token, *context.params->logprobs);
  }
  SampledToken sampled;
  sampled.token = token;
  return sampled;
}

}  // namespace tenon
