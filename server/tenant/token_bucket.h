// TokenBucket: a rate with a burst, which may run into debt.
#ifndef TENON_SERVER_TENANT_TOKEN_BUCKET_H_
#define TENON_SERVER_TENANT_TOKEN_BUCKET_H_

#include <algorithm>

#include "absl/time/time.h"

namespace tenon {

/// Fills at `rate` a second up to `burst`, both given at each use, so that a changed limit holds at
/// once. What is taken may exceed what is there: the debt is worked off before anything is let in,
/// so that the long-run rate is exact although costs are known only afterwards. Starts full. Not
/// thread-safe.
class TokenBucket {
 public:
  /// Zero when `amount` is there now, else the time until it is. `amount` is at most `burst`.
  absl::Duration TimeUntil(double amount, double rate, double burst, absl::Time now) {
    Refill(rate, burst, now);
    return level_ >= amount ? absl::ZeroDuration() : absl::Seconds((amount - level_) / rate);
  }

  void Take(double amount, double rate, double burst, absl::Time now) {
    Refill(rate, burst, now);
    level_ -= amount;
  }

  double level() const { return level_; }
  /// When it had that level; infinitely past: it was never used.
  absl::Time time() const { return last_; }
  void Restore(double level, absl::Time time) {
    level_ = level;
    last_ = time;
  }

 private:
  void Refill(double rate, double burst, absl::Time now) {
    if (last_ == absl::InfinitePast()) {
      level_ = burst;
    } else if (now > last_) {  // a clock that steps back fills nothing
      level_ += rate * absl::ToDoubleSeconds(now - last_);
    }
    level_ = std::min(level_, burst);
    last_ = std::max(last_, now);
  }

  double level_ = 0;
  absl::Time last_ = absl::InfinitePast();
};

}  // namespace tenon

#endif  // TENON_SERVER_TENANT_TOKEN_BUCKET_H_
