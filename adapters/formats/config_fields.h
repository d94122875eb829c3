// Reading fields of an adapter_config.json, with errors that name the field and its value.
#ifndef TENON_ADAPTERS_FORMATS_CONFIG_FIELDS_H_
#define TENON_ADAPTERS_FORMATS_CONFIG_FIELDS_H_

#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace tenon {

/// INVALID_ARGUMENT (reason INVALID_CONFIG): `field` is `value`, "which is not <wanted>".
absl::Status InvalidConfig(absl::string_view field, const nlohmann::ordered_json& value,
                           absl::string_view wanted);

/// INVALID_ARGUMENT (reason UNSUPPORTED_ADAPTER): `field` is `value`, "which is not supported".
absl::Status UnsupportedConfig(absl::string_view field, const nlohmann::ordered_json& value,
                               absl::string_view hint = "");

/// The field's value; null when it is absent. Borrowed from `config`, or static.
const nlohmann::ordered_json& Field(const nlohmann::ordered_json& config, absl::string_view name);

/// Whether `value` asks for nothing: null, false, an empty string, list or object.
bool IsUnset(const nlohmann::ordered_json& value);

/// True or false; `fallback` when the field is absent or null.
absl::StatusOr<bool> ReadBool(const nlohmann::ordered_json& config, absl::string_view name,
                              bool fallback = false);

/// `value` as a whole number from 1 on. Above `limit`, the error has reason `limit_reason` and
/// names `limit_name`.
absl::StatusOr<int64_t> CheckCount(absl::string_view field, const nlohmann::ordered_json& value,
                                   int64_t limit, absl::string_view limit_name,
                                   absl::string_view limit_reason);

/// `value` as a finite number within 1e6 of zero.
absl::StatusOr<double> CheckFactor(absl::string_view field, const nlohmann::ordered_json& value);

/// The strings of a list.
absl::StatusOr<std::vector<std::string>> CheckStrings(absl::string_view field,
                                                      const nlohmann::ordered_json& value);

/// The whole numbers from 0 to 2^31 - 1 of a list, at most `limit`.
absl::StatusOr<std::vector<int32_t>> CheckIndices(absl::string_view field,
                                                  const nlohmann::ordered_json& value,
                                                  size_t limit);

/// Refuses the first set field that is in none of `known`: it may change the result.
absl::Status CheckNoOtherFields(const nlohmann::ordered_json& config,
                                std::initializer_list<std::span<const absl::string_view>> known);

}  // namespace tenon

#endif  // TENON_ADAPTERS_FORMATS_CONFIG_FIELDS_H_
