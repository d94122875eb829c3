// CurlTransport: HTTP by libcurl, which only this file's implementation sees.
#ifndef TENON_ADAPTERS_S3_CURL_TRANSPORT_H_
#define TENON_ADAPTERS_S3_CURL_TRANSPORT_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "adapters/s3/http.h"

namespace tenon {

/// Keeps connections open between requests. Follows no redirect and reads no proxy variables or
/// .netrc: a request goes where it says. Verifies certificates, always.
///
/// Thread-safe; blocks its caller for the exchange.
class CurlTransport {
 public:
  struct Options {
    std::string ca_file;  ///< PEM; empty: the system's
    absl::Duration connect_timeout = absl::Seconds(2);
    /// An exchange that moves less than 1 KiB/s for this long is given up.
    absl::Duration stall_timeout = absl::Seconds(2);
    int64_t max_body_bytes = 16 << 20;  ///< of an answer without a sink
  };
  explicit CurlTransport(Options options);
  ~CurlTransport();
  CurlTransport(const CurlTransport&) = delete;
  CurlTransport& operator=(const CurlTransport&) = delete;

  absl::StatusOr<HttpResponse> Send(const HttpRequest& request) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  class Exchange;

  const Options options_;
  absl::Mutex mutex_;
  std::vector<void*> idle_ ABSL_GUARDED_BY(mutex_);  // CURL handles, each with its connections
};

}  // namespace tenon

#endif  // TENON_ADAPTERS_S3_CURL_TRANSPORT_H_
