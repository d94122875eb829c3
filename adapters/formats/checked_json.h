// JSON of untrusted bytes, checked before it becomes a tree.
#ifndef TENON_ADAPTERS_FORMATS_CHECKED_JSON_H_
#define TENON_ADAPTERS_FORMATS_CHECKED_JSON_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace tenon {

struct JsonLimits {
  int64_t max_bytes = int64_t{1} << 20;
  size_t max_depth = 16;
  size_t max_keys = 16'384;           ///< of all objects together
  size_t max_keys_per_object = 4096;  ///< ordered objects are searched linearly
};

/// An object with its keys in the file's order. INVALID_ARGUMENT (reason MALFORMED_JSON), naming
/// `file_name`, for anything that is not one JSON object of unique keys within the limits.
absl::StatusOr<nlohmann::ordered_json> ParseCheckedJson(absl::string_view file_name,
                                                        std::span<const std::byte> bytes,
                                                        const JsonLimits& limits);

/// `value` as compact text for a message, quoted and bounded.
std::string QuotedJson(const nlohmann::ordered_json& value);

}  // namespace tenon

#endif  // TENON_ADAPTERS_FORMATS_CHECKED_JSON_H_
