// When an object store's failure is worth another try, and when.
#ifndef TENON_ADAPTERS_S3_S3_RETRY_H_
#define TENON_ADAPTERS_S3_S3_RETRY_H_

#include <functional>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "adapters/s3/http.h"

namespace tenon {

/// Time and chance are given, so that tests neither sleep nor flake.
struct RetryPolicy {
  /// No try begins later than this after the first. With the time that one try may take, this
  /// bounds how long a caller waits for a store that is down.
  absl::Duration budget = absl::Seconds(2);
  absl::Duration first_delay = absl::Milliseconds(100);  ///< doubles with each try
  absl::Duration max_delay = absl::Seconds(2);
  std::function<absl::Time()> clock;
  std::function<void(absl::Duration)> sleep;
  std::function<double()> chance;  ///< in [0, 1)
};

/// Sends until there is an answer that another try would not better: 2xx, 3xx and most of 4xx.
/// Tries again, after a random part of a delay that doubles (full jitter), when no answer came and
/// for 429, 500, 502, 503 and 504. UNAVAILABLE when the budget is used up.
///
/// `send` makes the request anew for each try: a signature holds its time. `*tries` (may be null)
/// counts them: an answer to the second may be about what the first one did.
absl::StatusOr<HttpResponse> SendWithRetries(
    const RetryPolicy& policy, const std::function<absl::StatusOr<HttpResponse>()>& send,
    int* tries);

}  // namespace tenon

#endif  // TENON_ADAPTERS_S3_S3_RETRY_H_
