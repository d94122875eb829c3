#include "adapters/base/error_metadata.h"

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace tenon {
namespace {

// One payload a fact; the key is the rest of the address.
constexpr absl::string_view kMetadataUrl = "type.tenon.dev/tenon.ErrorMetadata/";

}  // namespace

absl::Status WithMetadata(absl::Status status, absl::string_view key, absl::string_view value) {
  status.SetPayload(absl::StrCat(kMetadataUrl, key), absl::Cord(value));  // none when OK
  return status;
}

std::map<std::string, std::string> GetErrorMetadata(const absl::Status& status) {
  std::map<std::string, std::string> metadata;
  status.ForEachPayload([&metadata](absl::string_view url, const absl::Cord& value) {
    if (absl::ConsumePrefix(&url, kMetadataUrl)) {
      metadata.emplace(url, std::string(value));
    }
  });
  return metadata;
}

}  // namespace tenon
