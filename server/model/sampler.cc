#include "server/model/sampler.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "adapters/base/status_macros.h"
#include "server/model/philox.h"
#include "server/model/row_math.h"

namespace tenon {
namespace {

constexpr float kMasked = -std::numeric_limits<float>::infinity();
constexpr size_t kFirstTopPSelection = 64;
// How far below the best the tokens of interest are looked for, nearest first: almost always they
// are a few hundred, and the rest of the vocabulary is never copied or ordered.
constexpr float kThresholds[] = {-2.0f, -5.0f, -10.0f, -20.0f, kMasked};

absl::Status CheckLogits(std::span<const float> logits) {
  // -inf is a masked token; NaN and +inf come from weights that overflow or are damaged.
  if (AllBelowInfinity(logits)) {
    return absl::OkStatus();
  }
  const auto bad = std::find_if(logits.begin(), logits.end(), [](float logit) {
    return !(logit <= std::numeric_limits<float>::max());
  });
  return absl::InternalError(
      absl::StrCat("the model's logit of token ", bad - logits.begin(), " is ", *bad));
}

// The token with the largest score, the lowest of equals.
absl::StatusOr<int32_t> Best(std::span<const float> scores) {
  const float best = Largest(scores);
  if (!(best > kMasked)) {
    return absl::InternalError("no token is left to choose from");
  }
  return static_cast<int32_t>(std::find(scores.begin(), scores.end(), best) - scores.begin());
}

// log(sum(exp(logits))).
double LogSumExp(std::span<const float> logits) {
  const float largest = Largest(logits);
  std::vector<float> weights(logits.size());
  ExpShifted(logits, largest, weights);
  return largest + std::log(Sum(weights));
}

}  // namespace

Sampler::Sampler(int64_t vocab_size)
    : scores_(vocab_size), weights_(vocab_size), adjustments_(vocab_size) {}

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

void Sampler::Collect(float threshold) {
  candidates_.clear();
  for (size_t token = 0; token < scores_.size(); ++token) {
    if (scores_[token] >= threshold && scores_[token] > kMasked) {
      candidates_.push_back({static_cast<int32_t>(token), scores_[token], weights_[token]});
    }
  }
}

double Sampler::CandidateMass() const {
  double mass = 0;
  for (const Candidate& candidate : candidates_) {
    mass += candidate.weight;
  }
  return mass;
}

void Sampler::CollectTopK(int64_t k) {
  for (const float threshold : kThresholds) {
    Collect(threshold);
    if (static_cast<int64_t>(candidates_.size()) >= k) {
      break;
    }
  }
  if (static_cast<int64_t>(candidates_.size()) <= k) {
    return;
  }
  std::vector<float> sorted;
  for (const Candidate& candidate : candidates_) {
    sorted.push_back(candidate.score);
  }
  std::nth_element(sorted.begin(), sorted.begin() + (k - 1), sorted.end(), std::greater<>());
  const float kth = sorted[k - 1];
  std::erase_if(candidates_, [kth](const Candidate& candidate) { return candidate.score < kth; });
}

void Sampler::CollectMass(double mass) {
  for (const float threshold : kThresholds) {
    Collect(threshold);
    if (CandidateMass() >= mass) {
      return;
    }
  }
}

void Sampler::KeepTopP(double mass) {
  const auto better = [](const Candidate& a, const Candidate& b) {
    return a.score != b.score ? a.score > b.score : a.token < b.token;
  };
  // Only as much of the order as the mass needs: the best 64, then twice as many, and so on.
  size_t kept = 0;
  size_t sorted = 0;
  double kept_mass = 0;
  while (kept < candidates_.size() && kept_mass < mass) {
    if (kept == sorted) {
      sorted = std::min(candidates_.size(), std::max(kFirstTopPSelection, 2 * sorted));
      const auto begin = candidates_.begin() + static_cast<int64_t>(kept);
      const auto end = candidates_.begin() + static_cast<int64_t>(sorted);
      std::nth_element(begin, end - 1, candidates_.end(), better);
      std::sort(begin, end, better);
    }
    kept_mass += candidates_[kept].weight;
    ++kept;
  }
  candidates_.resize(std::max<size_t>(kept, 1));
  std::sort(candidates_.begin(), candidates_.end(),
            [](const Candidate& a, const Candidate& b) { return a.token < b.token; });
}

void Sampler::KeepMinP(float min_p) {
  // The best one's weight is 1.
  std::erase_if(candidates_,
                [min_p](const Candidate& candidate) { return candidate.weight < min_p; });
}

int32_t Sampler::Draw(double uniform) const {
  const double target = uniform * CandidateMass();
  double cumulative = 0;
  for (const Candidate& candidate : candidates_) {
    cumulative += candidate.weight;
    if (cumulative > target) {
      return candidate.token;
    }
  }
  return candidates_.back().token;  // only when `target` was rounded up to the whole mass
}

absl::StatusOr<int32_t> Sampler::Choose(const SamplingContext& context) {
  const SamplingParams& params = *context.params;
  TENON_ASSIGN_OR_RETURN(const int32_t best_token, Best(scores_));
  if (params.temperature == 0.0f) {
    return best_token;
  }
  const float best = scores_[best_token];
  // Measured from the best, so that no temperature, however small, overflows.
  for (float& score : scores_) {
    score = (score - best) / params.temperature;
  }
  ExpShifted(scores_, 0.0f, weights_);
  if (params.top_k > 0 && params.top_k < static_cast<int64_t>(scores_.size())) {
    CollectTopK(params.top_k);
    if (params.top_p < 1.0f) {
      KeepTopP(params.top_p * CandidateMass());
    }
  } else if (params.top_p < 1.0f) {
    const double mass = params.top_p * Sum(weights_);
    CollectMass(mass);
    KeepTopP(mass);
  } else {
    Collect(kMasked);
  }
  if (params.min_p > 0.0f) {
    KeepMinP(params.min_p);
  }
  return Draw(Uniform(context));
}

double Sampler::Uniform(const SamplingContext& context) {
  return PhiloxUniform(context.params->seed, static_cast<uint32_t>(context.sample_index),
                       static_cast<uint64_t>(context.num_generated()));
}

absl::StatusOr<int32_t> Sampler::Adjust(std::span<const float> logits,
                                        const SamplingContext& context) {
  scores_.assign(logits.begin(), logits.end());
  for (const cuda::LogitAdjustment& entry : adjustments_.entries()) {
    float& score = scores_[static_cast<size_t>(entry.token)];
    score += entry.bias;
    score = score < 0 ? score * entry.repetition : score / entry.repetition;
    score -= entry.penalty;
  }
  return Choose(context);
}

absl::StatusOr<SampledToken> Sampler::Sample(std::span<const float> logits,
                                             const SamplingContext& context) {
  TENON_RETURN_IF_ERROR(CheckLogits(logits));
  adjustments_.Clear();
  adjustments_.Add(0, context);
  const bool takes_largest = context.params->temperature == 0.0f && adjustments_.entries().empty();
  TENON_ASSIGN_OR_RETURN(const int32_t token,
                         takes_largest ? Best(logits) : Adjust(logits, context));
  if (context.params->logprobs.has_value()) {
    return Score(logits, token, *context.params->logprobs);
  }
  SampledToken sampled;
  sampled.token = token;
  return sampled;
}

}  // namespace tenon
