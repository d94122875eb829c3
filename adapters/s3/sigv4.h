// AWS Signature Version 4: how a request proves who sends it.
#ifndef TENON_ADAPTERS_S3_SIGV4_H_
#define TENON_ADAPTERS_S3_SIGV4_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace tenon {

struct S3Credentials {
  std::string access_key_id;
  std::string secret_access_key;
  std::string session_token;  ///< of temporary credentials; empty: none
};

/// What is signed of a request.
struct SignedParts {
  std::string method;
  std::string path;  ///< encoded: UriEncode of each segment
  /// Not encoded; a parameter without a value has "".
  std::vector<std::pair<std::string, std::string>> query;
  /// All that are to be signed: host, x-amz-date and x-amz-content-sha256 among them. Names in
  /// lower case.
  std::vector<std::pair<std::string, std::string>> headers;
  std::string payload_sha256;  ///< lower-case hex
};

/// The value of the header Authorization (docs.aws.amazon.com, "Signature Version 4 signing
/// process"). Pure.
std::string Authorization(const SignedParts& parts, const S3Credentials& credentials,
                          absl::string_view region, absl::string_view service, absl::Time time);

/// "20130524T000000Z", the value of x-amz-date.
std::string AmzDate(absl::Time time);

/// Percent-encodes all but A-Z a-z 0-9 - _ . ~, and with `keep_slash` the slash.
std::string UriEncode(absl::string_view text, bool keep_slash);

/// "a=1&b=" with both sides encoded, in the order that is signed.
std::string CanonicalQuery(const std::vector<std::pair<std::string, std::string>>& query);

/// Lower-case hex SHA-256 of `text`.
std::string Sha256Hex(absl::string_view text);

}  // namespace tenon

#endif  // TENON_ADAPTERS_S3_SIGV4_H_
