#include "adapters/s3/s3_retry.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "adapters/s3/s3_listing.h"

namespace tenon {
namespace {

bool MayPass(int status) {
  return status == 429 || status == 500 || status == 502 || status == 503 || status == 504;
}

}  // namespace

absl::StatusOr<HttpResponse> SendWithRetries(
    const RetryPolicy& policy, const std::function<absl::StatusOr<HttpResponse>()>& send,
    int* tries) {
  const absl::Time last = policy.clock() + policy.budget;
  absl::Duration delay = policy.first_delay;
  for (int count = 1;; ++count) {
    if (tries != nullptr) {
      *tries = count;
    }
    absl::StatusOr<HttpResponse> response = send();
    const bool again =
        response.ok() ? MayPass(response->status) : absl::IsUnavailable(response.status());
    if (!again) {
      return response;
    }
    const absl::Duration wait = policy.chance() * delay;
    if (policy.clock() + wait > last) {
      const std::string why =
          response.ok() ? absl::StrCat("HTTP ", response->status, " ", ParseError(response->body))
                        : std::string(response.status().message());
      return absl::UnavailableError(absl::StrCat("the object store failed ", count,
                                                 count == 1 ? " time: " : " times: ", why));
    }
    policy.sleep(wait);
    delay = std::min(2 * delay, policy.max_delay);
  }
}

}  // namespace tenon
