// MergePolicy: which selections carry enough of the work to be worth weights of their own.
#ifndef TENON_ADAPTERS_RESIDENCY_MERGE_POLICY_H_
#define TENON_ADAPTERS_RESIDENCY_MERGE_POLICY_H_

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace tenon {

struct MergePolicyOptions {
  absl::Duration window = absl::Seconds(10);
  /// A selection with this share of the window's tokens is to be merged. Above one half, so that
  /// there is one at most.
  double merge_share = 0.6;
  /// One that has fallen below this share is to be unmerged. What lies between keeps its state.
  double unmerge_share = 0.3;
  /// With fewer tokens in the window nothing changes: an idle server keeps what it has.
  int64_t min_tokens = 512;
};

/// Shares of the tokens over a sliding window, with hysteresis.
///
/// A value without a clock: the caller passes the time, which should not go backwards (a step back
/// counts as no step). Not thread-safe.
///
///   policy.Count(selection_key, num_tokens, now);                  // each step
///   const MergePolicy::Advice advice = policy.Advise(merged, now);
class MergePolicy {
 public:
  /// What to change.
  struct Advice {
    std::optional<std::string> merge;  ///< the key of a selection that is not merged
    std::vector<std::string> unmerge;  ///< keys of those that were given as merged
  };

  explicit MergePolicy(MergePolicyOptions options) : options_(options) {}

  /// Notes what a step computed for a selection; the key "" is the base.
  void Count(absl::string_view key, int64_t num_tokens, absl::Time now);

  /// `merged`: the keys of all that are merged, or about to be, by this policy's advice. Merging is
  /// advised only when the window is full: a burst at the start of traffic is no trend.
  Advice Advise(const std::vector<std::string>& merged, absl::Time now);

  /// The part of the window's tokens, 0 to 1.
  double Share(absl::string_view key) const;
  int64_t num_tokens() const { return num_tokens_; }

 private:
  // The window is made of this many parts, which leave it one by one.
  static constexpr int64_t kNumParts = 10;
  struct Part {
    int64_t index = 0;  // of the time since the epoch, in units of window / kNumParts
    absl::flat_hash_map<std::string, int64_t> tokens;
  };

  // Drops what has left the window; the last part is then that of `now`.
  void Advance(absl::Time now);
  bool IsFull() const { return parts_.back().index - first_index_ >= kNumParts; }

  const MergePolicyOptions options_;
  std::deque<Part> parts_;   // ascending index; empty before the first Count
  int64_t first_index_ = 0;  // of the traffic that goes on without a gap of a whole window
  absl::flat_hash_map<std::string, int64_t> totals_;  // over all parts; no zeros
  int64_t num_tokens_ = 0;
};

}  // namespace tenon

#endif  // TENON_ADAPTERS_RESIDENCY_MERGE_POLICY_H_
