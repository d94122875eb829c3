// HTTP as the S3 client sees it: plain values, and a function that carries them.
#ifndef TENON_ADAPTERS_S3_HTTP_H_
#define TENON_ADAPTERS_S3_HTTP_H_

#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace tenon {

/// Takes a piece of a body. An error ends the transfer, which then fails with it.
using BodySink = std::function<absl::Status(absl::string_view)>;

struct HttpRequest {
  std::string method;  ///< "GET", "PUT", "POST", "DELETE"
  std::string url;     ///< encoded
  std::vector<std::pair<std::string, std::string>> headers;
  absl::string_view body;  ///< borrowed until the answer is there
  BodySink sink;           ///< takes the body of a 2xx answer; empty: HttpResponse::body does
};

struct HttpResponse {
  int status = 0;
  std::map<std::string, std::string> headers;  ///< names in lower case
  std::string body;
};

/// One exchange. UNAVAILABLE when no whole answer came: not connected, broken off, too slow.
/// Thread-safe. Does I/O.
using HttpTransport = std::function<absl::StatusOr<HttpResponse>(const HttpRequest&)>;

}  // namespace tenon

#endif  // TENON_ADAPTERS_S3_HTTP_H_
