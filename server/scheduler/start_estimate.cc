#include "server/scheduler/start_estimate.h"

#include <algorithm>
#include <cmath>

namespace tenon {
namespace {

// Weight of the newest start in the moving average: about the last ten count.
constexpr double kNewestWeight = 0.2;
// A gap of so many mean ones is no accident: even of starts at random e^-8 are so far apart.
constexpr double kOverdue = 8;

}  // namespace

void StartEstimate::Observe(int64_t num_started, bool still_waiting, absl::Time now) {
  const bool waited = since_ != absl::InfiniteFuture();
  if (num_started > 0 && waited) {
    const absl::Duration apart =
        std::max(now - since_, absl::ZeroDuration()) / static_cast<double>(num_started);
    const double weight =
        known_ ? 1.0 - std::pow(1.0 - kNewestWeight, static_cast<double>(num_started)) : 1.0;
    interval_ += (apart - interval_) * weight;
    known_ = true;
  }
  if (!still_waiting) {
    since_ = absl::InfiniteFuture();
  } else if (num_started > 0 || !waited) {
    since_ = now;
  }
}

absl::Duration StartEstimate::Until(int64_t num_before, absl::Time now) const {
  if (!known_ || since_ == absl::InfiniteFuture()) {
    return absl::ZeroDuration();
  }
  const absl::Duration passed = std::max(now - since_, absl::ZeroDuration());
  const absl::Duration interval = std::max(interval_, passed / kOverdue);
  return interval * static_cast<double>(num_before) +
         std::max(interval - passed, absl::ZeroDuration());
}

}  // namespace tenon
