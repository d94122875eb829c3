#include "server/model/logit_adjustments.h"

#include <limits>

namespace tenon {

LogitAdjustments::LogitAdjustments(int64_t vocab_size)
    : positions_(static_cast<size_t>(vocab_size)) {}

bool LogitAdjustments::InVocabulary(int32_t token) const {
  return token >= 0 && static_cast<size_t>(token) < positions_.size();
}

cuda::LogitAdjustment& LogitAdjustments::Find(int32_t row, size_t row_begin, int32_t token) {
  int32_t& position = positions_[static_cast<size_t>(token)];
  if (position == 0) {
    entries_.push_back({row, token, /*bias=*/0.0f, /*repetition=*/1.0f, /*penalty=*/0.0f});
    position = static_cast<int32_t>(entries_.size() - row_begin);
  }
  return entries_[row_begin + static_cast<size_t>(position) - 1];
}

void LogitAdjustments::AddPenalties(int32_t row, size_t row_begin, const SamplingContext& context) {
  const SamplingParams& params = *context.params;
  if (params.repetition_penalty != 1.0f) {
    for (const int32_t token : context.tokens) {
      Find(row, row_begin, token).repetition = params.repetition_penalty;
    }
  }
  if (params.presence_penalty == 0.0f && params.frequency_penalty == 0.0f) {
    return;
  }
  for (const int32_t token :
       context.tokens.subspan(static_cast<size_t>(context.num_prompt_tokens))) {
    Find(row, row_begin, token).penalty += 1.0f;  // for now how often it was generated
  }
  for (size_t i = row_begin; i < entries_.size(); ++i) {
    float& penalty = entries_[i].penalty;
    penalty = penalty > 0.0f ? params.presence_penalty + params.frequency_penalty * penalty : 0.0f;
  }
}

void LogitAdjustments::Add(int32_t row, const SamplingContext& context) {
  const SamplingParams& params = *context.params;
  const size_t row_begin = entries_.size();
  for (const auto& [token, bias] : params.logit_bias) {
    if (InVocabulary(token)) {
      Find(row, row_begin, token).bias += bias;
    }
  }
  AddPenalties(row, row_begin, context);
  if (context.num_generated() < params.min_tokens) {
    for (const int32_t token : params.stop_token_ids) {
      if (InVocabulary(token)) {
        Find(row, row_begin, token).penalty = std::numeric_limits<float>::infinity();
      }
    }
  }
  for (size_t i = row_begin; i < entries_.size(); ++i) {
    positions_[static_cast<size_t>(entries_[i].token)] = 0;
  }
}

}  // namespace tenon
