// S3Client: the objects of one bucket, below one prefix.
#ifndef TENON_ADAPTERS_S3_S3_CLIENT_H_
#define TENON_ADAPTERS_S3_S3_CLIENT_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "adapters/s3/credentials.h"
#include "adapters/s3/http.h"
#include "adapters/s3/s3_listing.h"
#include "adapters/s3/s3_retry.h"

namespace tenon {

/// Where objects are: "s3://bucket/prefix", and how the server is reached.
struct S3Location {
  std::string bucket;
  std::string prefix;  ///< with its slash at the end; may be empty
  /// "https://host[:port]"; empty: AWS's of the region.
  std::string endpoint;
  std::string region = "us-east-1";
  bool path_style = false;  ///< https://host/bucket/key instead of https://bucket.host/key
};

/// Takes the bucket and prefix from "s3://bucket/prefix". INVALID_ARGUMENT for other texts.
absl::StatusOr<S3Location> ParseS3Location(absl::string_view text);

/// What an object must be for a Put to take place.
struct PutCondition {
  bool absent = false;  ///< If-None-Match: *
  std::string etag{};   ///< If-Match; empty: no matter
};

/// An object's content and its ETag.
struct S3Object {
  std::string bytes;
  std::string etag;
};

/// Keys are below the location's prefix. Requests are signed anew for each try; those that a
/// store's bad moment failed are tried again (SendWithRetries).
///
/// Errors: NOT_FOUND, ABORTED (the condition of a Put does not hold), PERMISSION_DENIED,
/// UNAVAILABLE (after the retries), DATA_LOSS (an answer that is none). Messages name the key,
/// never a credential.
///
/// Thread-safe; blocks its caller.
class S3Client {
 public:
  struct Options {
    S3Location location;
    CredentialSource credentials;
    HttpTransport transport;
    RetryPolicy retry;
    int64_t part_bytes = int64_t{8} << 20;  ///< larger objects go up in parts of this size
  };
  explicit S3Client(Options options);

  absl::StatusOr<S3Object> Get(absl::string_view key) const;

  /// The whole content, piece by piece. When a try breaks off in the middle, `restart` is called
  /// and the next one begins with the first byte.
  absl::Status Download(absl::string_view key, const BodySink& sink,
                        const std::function<absl::Status()>& restart) const;

  /// The new ETag. In parts when `bytes` are more than part_bytes; then only without a condition.
  ///
  /// A try whose answer was lost may have taken place: when a later one says that the condition
  /// does not hold, and the object has just these bytes, it was ours. So bytes that two writers
  /// could both send under one key need something that tells them apart.
  absl::StatusOr<std::string> Put(absl::string_view key, absl::string_view bytes,
                                  const PutCondition& condition = {}) const;

  /// OK also when there is none.
  absl::Status Delete(absl::string_view key) const;

  /// All objects whose key begins with `prefix`, ordered by key; keys without the location's
  /// prefix.
  absl::StatusOr<std::vector<S3Entry>> List(absl::string_view prefix) const;

  const S3Location& location() const { return options_.location; }

 private:
  using Query = std::vector<std::pair<std::string, std::string>>;
  struct Call {
    std::string method;
    std::string key;
    Query query;
    std::vector<std::pair<std::string, std::string>> headers;
    absl::string_view body;
    BodySink sink;
  };

  absl::StatusOr<HttpResponse> Send(const Call& call, int* tries = nullptr) const;
  absl::StatusOr<HttpResponse> SendOnce(const Call& call, absl::string_view payload_sha256) const;
  absl::StatusOr<std::string> PutParts(absl::string_view key, absl::string_view bytes) const;

  const Options options_;
  std::string scheme_;
  std::string host_;
  std::string root_;  // of each path: "/" or "/bucket/"
};

}  // namespace tenon

#endif  // TENON_ADAPTERS_S3_S3_CLIENT_H_
