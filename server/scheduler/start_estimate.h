// StartEstimate: how long a request of one tenant will wait for its place in the batch.
#ifndef TENON_SERVER_SCHEDULER_START_ESTIMATE_H_
#define TENON_SERVER_SCHEDULER_START_ESTIMATE_H_

#include <cstdint>

#include "absl/time/time.h"

namespace tenon {

/// Learns from one tenant's own starts how far apart they are while it has requests that wait. That
/// is what its share is worth at the moment, whatever the others do and however long answers turn
/// out to be.
///
/// A value; not thread-safe. No clock.
class StartEstimate {
 public:
  /// After each step: how many of the tenant's sequences were given their place, and whether others
  /// still wait for theirs.
  void Observe(int64_t num_started, bool still_waiting, absl::Time now);

  /// From `now` until the start of a sequence with that many of its tenant's before it. Zero while
  /// nothing is known, and when nobody waits: it may then start in the next step.
  absl::Duration Until(int64_t num_before, absl::Time now) const;

 private:
  bool known_ = false;
  absl::Duration interval_;                    // between two starts; moving average
  absl::Time since_ = absl::InfiniteFuture();  // the last start, or when they began to wait
};

}  // namespace tenon

#endif  // TENON_SERVER_SCHEDULER_START_ESTIMATE_H_
