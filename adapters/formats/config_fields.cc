#include "adapters/formats/config_fields.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"
#include "adapters/formats/checked_json.h"

namespace tenon {

using Json = nlohmann::ordered_json;

absl::Status InvalidConfig(absl::string_view field, const Json& value, absl::string_view wanted) {
  return InvalidAdapterError("INVALID_CONFIG", field,
                             absl::StrCat("adapter_config.json: ", field, " is ", QuotedJson(value),
                                          ", which is not ", wanted));
}

absl::Status UnsupportedConfig(absl::string_view field, const Json& value, absl::string_view hint) {
  return InvalidAdapterError(
      "UNSUPPORTED_ADAPTER", field,
      absl::StrCat("adapter_config.json: ", Quoted(field), " is ", QuotedJson(value),
                   ", which is not supported", hint.empty() ? "" : "; ", hint));
}

const Json& Field(const Json& config, absl::string_view name) {
  static const Json* const kNull = new Json;
  const auto position = config.find(std::string(name));
  return position == config.end() ? *kNull : *position;
}

bool IsUnset(const Json& value) {
  return value.is_null() || value == Json(false) ||
         ((value.is_string() || value.is_structured()) && value.empty()) ||
         (value.is_string() && value.get_ref<const std::string&>().empty());
}

absl::StatusOr<bool> ReadBool(const Json& config, absl::string_view name, bool fallback) {
  const Json& value = Field(config, name);
  if (value.is_null()) {
    return fallback;
  }
  if (!value.is_boolean()) {
    return InvalidConfig(name, value, "true or false");
  }
  return value.get<bool>();
}

absl::StatusOr<int64_t> CheckCount(absl::string_view field, const Json& value, int64_t limit,
                                   absl::string_view limit_name, absl::string_view limit_reason) {
  if (!value.is_number_integer() || (!value.is_number_unsigned() && value.get<int64_t>() < 1) ||
      value.get<uint64_t>() == 0) {
    return InvalidConfig(field, value, "a whole number from 1 on");
  }
  if (value.get<uint64_t>() > static_cast<uint64_t>(limit)) {
    return InvalidAdapterError(
        limit_reason, field,
        absl::StrCat("adapter_config.json: ", field, " ", value.get<uint64_t>(),
                     " exceeds the limit of ", limit, " (", limit_name, ")"));
  }
  return value.get<int64_t>();
}

absl::StatusOr<double> CheckFactor(absl::string_view field, const Json& value) {
  if (!value.is_number() || !std::isfinite(value.get<double>()) ||
      std::abs(value.get<double>()) > 1e6) {
    return InvalidConfig(field, value, "a number within 1e6 of zero");
  }
  return value.get<double>();
}

absl::StatusOr<std::vector<std::string>> CheckStrings(absl::string_view field, const Json& value) {
  if (!value.is_array()) {
    return InvalidConfig(field, value, "a list of strings");
  }
  std::vector<std::string> strings;
  for (const Json& item : value) {
    if (!item.is_string()) {
      return InvalidConfig(field, item, "a string");
    }
    strings.push_back(item.get<std::string>());
  }
  return strings;
}

absl::StatusOr<std::vector<int32_t>> CheckIndices(absl::string_view field, const Json& value,
                                                  size_t limit) {
  if (!value.is_array()) {
    return InvalidConfig(field, value, "a list of numbers");
  }
  if (value.size() > limit) {
    return InvalidAdapterError("INVALID_CONFIG", field,
                               absl::StrCat("adapter_config.json: ", field, " has ", value.size(),
                                            " entries, which exceeds the limit of ", limit));
  }
  std::vector<int32_t> indices;
  for (const Json& item : value) {
    if (!item.is_number_unsigned() ||
        item.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int32_t>::max())) {
      return InvalidConfig(field, item, "a whole number from 0 to 2147483647");
    }
    indices.push_back(item.get<int32_t>());
  }
  return indices;
}

absl::Status CheckNoOtherFields(const Json& config,
                                std::initializer_list<std::span<const absl::string_view>> known) {
  for (const auto& [name, value] : config.items()) {
    const absl::string_view field = name;
    const bool is_known = std::any_of(known.begin(), known.end(), [&](const auto& fields) {
      return std::find(fields.begin(), fields.end(), field) != fields.end();
    });
    if (!is_known && !IsUnset(value)) {
      return UnsupportedConfig(name, value);
    }
  }
  return absl::OkStatus();
}

}  // namespace tenon
