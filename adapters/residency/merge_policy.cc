#include "adapters/residency/merge_policy.h"

#include <algorithm>

namespace tenon {

void MergePolicy::Advance(absl::Time now) {
  int64_t index = absl::ToInt64Microseconds(now - absl::UnixEpoch()) /
                  std::max<int64_t>(absl::ToInt64Microseconds(options_.window) / kNumParts, 1);
  if (!parts_.empty()) {
    index = std::max(index, parts_.back().index);
  }
  while (!parts_.empty() && parts_.front().index <= index - kNumParts) {
    for (const auto& [key, tokens] : parts_.front().tokens) {
      const auto total = totals_.find(key);
      total->second -= tokens;
      num_tokens_ -= tokens;
      if (total->second == 0) {
        totals_.erase(total);
      }
    }
    parts_.pop_front();
  }
  if (parts_.empty()) {
    first_index_ = index;
  }
  if (parts_.empty() || parts_.back().index != index) {
    parts_.push_back({index, {}});
  }
}

void MergePolicy::Count(absl::string_view key, int64_t num_tokens, absl::Time now) {
  Advance(now);
  if (num_tokens <= 0) {
    return;
  }
  parts_.back().tokens[key] += num_tokens;
  totals_[key] += num_tokens;
  num_tokens_ += num_tokens;
}

double MergePolicy::Share(absl::string_view key) const {
  const auto found = totals_.find(key);
  return found == totals_.end()
             ? 0.0
             : static_cast<double>(found->second) / static_cast<double>(num_tokens_);
}

MergePolicy::Advice MergePolicy::Advise(const std::vector<std::string>& merged, absl::Time now) {
  Advance(now);
  Advice advice;
  if (num_tokens_ < options_.min_tokens || !IsFull()) {
    return advice;
  }
  for (const std::string& key : merged) {
    if (Share(key) < options_.unmerge_share) {
      advice.unmerge.push_back(key);
    }
  }
  for (const auto& [key, tokens] : totals_) {
    if (!key.empty() && Share(key) >= options_.merge_share &&
        std::find(merged.begin(), merged.end(), key) == merged.end()) {
      advice.merge = key;
    }
  }
  return advice;
}

}  // namespace tenon
