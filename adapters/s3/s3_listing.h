// The XML that an S3 server answers with, parsed as untrusted bytes.
#ifndef TENON_ADAPTERS_S3_S3_LISTING_H_
#define TENON_ADAPTERS_S3_S3_LISTING_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace tenon {

/// One object of a listing.
struct S3Entry {
  std::string key;
  std::string etag;  ///< as the server writes it, quotes included; changes when the content does
  int64_t num_bytes = 0;
};

/// One page of ListObjectsV2.
struct S3ListPage {
  std::vector<S3Entry> entries;
  std::string next;  ///< continuation token; empty on the last page
};

/// DATA_LOSS for what is no such answer.
absl::StatusOr<S3ListPage> ParseListPage(absl::string_view xml);

/// UploadId of InitiateMultipartUpload's answer. DATA_LOSS when there is none.
absl::StatusOr<std::string> ParseUploadId(absl::string_view xml);

/// "code: message" of an error's answer; "" when it is none. CompleteMultipartUpload may answer 200
/// with one.
std::string ParseError(absl::string_view xml);

}  // namespace tenon

#endif  // TENON_ADAPTERS_S3_S3_LISTING_H_
