// Facts for machines on an error, beside its ErrorDetail: google.rpc.ErrorInfo.metadata.
#ifndef TENON_ADAPTERS_BASE_ERROR_METADATA_H_
#define TENON_ADAPTERS_BASE_ERROR_METADATA_H_

#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace tenon {

/// `status` with one more fact. `key` is lower_snake_case. OK stays OK.
absl::Status WithMetadata(absl::Status status, absl::string_view key, absl::string_view value);

/// What WithMetadata attached, by key. Annotate keeps it.
std::map<std::string, std::string> GetErrorMetadata(const absl::Status& status);

}  // namespace tenon

#endif  // TENON_ADAPTERS_BASE_ERROR_METADATA_H_
