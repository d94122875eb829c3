#include "server/model/json_fields.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "adapters/base/json_text.h"
#include "adapters/base/status_macros.h"

namespace tenon {
namespace {

constexpr size_t kMaxShownValueBytes = 80;

}  // namespace

absl::StatusOr<nlohmann::json> ParseJsonObject(absl::string_view where, absl::string_view text) {
  nlohmann::json parsed = ParseJson(text);
  if (parsed.is_discarded()) {
    return absl::InvalidArgumentError(absl::StrCat(where, ": not valid JSON"));
  }
  if (!parsed.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(where, ": not a JSON object"));
  }
  return parsed;
}

std::string JsonFields::Describe(absl::string_view name) const {
  std::string text = absl::StrCat(where_, ": field '", name, "'");
  const auto field = object_->find(std::string(name));
  if (field == object_->end()) {
    return text;
  }
  std::string value = field->dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  if (value.size() > kMaxShownValueBytes) {
    value.resize(kMaxShownValueBytes);
    value += "...";
  }
  return absl::StrCat(text, " = ", value);
}

absl::Status JsonFields::Invalid(absl::string_view name, absl::string_view problem) const {
  return absl::InvalidArgumentError(absl::StrCat(Describe(name), ": ", problem));
}

absl::Status JsonFields::NotImplemented(absl::string_view name) const {
  return absl::FailedPreconditionError(absl::StrCat(Describe(name), " is not implemented"));
}

const nlohmann::json* JsonFields::Find(absl::string_view name) {
  read_.insert(std::string(name));
  const auto field = object_->find(std::string(name));
  return field == object_->end() || field->is_null() ? nullptr : &*field;
}

absl::StatusOr<std::optional<int64_t>> JsonFields::OptionalInt(absl::string_view name, int64_t min,
                                                               int64_t max) {
  const nlohmann::json* field = Find(name);
  if (field == nullptr) {
    return std::nullopt;
  }
  // An unsigned value above the signed range would wrap in get<int64_t>().
  const bool fits = field->is_number_integer() &&
                    (!field->is_number_unsigned() || field->get<uint64_t>() <= INT64_MAX);
  if (!fits || field->get<int64_t>() < min || field->get<int64_t>() > max) {
    return Invalid(name, absl::StrCat("want an integer from ", min, " to ", max));
  }
  return field->get<int64_t>();
}

absl::StatusOr<int64_t> JsonFields::RequiredInt(absl::string_view name, int64_t min, int64_t max) {
  TENON_ASSIGN_OR_RETURN(const std::optional<int64_t> value, OptionalInt(name, min, max));
  if (!value.has_value()) {
    return Invalid(name, "missing");
  }
  return *value;
}

absl::StatusOr<std::optional<double>> JsonFields::OptionalNumber(absl::string_view name, double min,
                                                                 double max) {
  const nlohmann::json* field = Find(name);
  if (field == nullptr) {
    return std::nullopt;
  }
  if (!field->is_number() || !std::isfinite(field->get<double>()) || field->get<double>() < min ||
      field->get<double>() > max) {
    return Invalid(name, absl::StrCat("want a number from ", min, " to ", max));
  }
  return field->get<double>();
}

absl::StatusOr<double> JsonFields::RequiredNumber(absl::string_view name, double min, double max) {
  TENON_ASSIGN_OR_RETURN(const std::optional<double> value, OptionalNumber(name, min, max));
  if (!value.has_value()) {
    return Invalid(name, "missing");
  }
  return *value;
}

absl::StatusOr<bool> JsonFields::Bool(absl::string_view name, bool fallback) {
  const nlohmann::json* field = Find(name);
  if (field == nullptr) {
    return fallback;
  }
  if (!field->is_boolean()) {
    return Invalid(name, "want true or false");
  }
  return field->get<bool>();
}

absl::StatusOr<std::optional<std::string>> JsonFields::OptionalString(absl::string_view name) {
  const nlohmann::json* field = Find(name);
  if (field == nullptr) {
    return std::nullopt;
  }
  if (!field->is_string()) {
    return Invalid(name, "want a string");
  }
  return field->get<std::string>();
}

absl::StatusOr<std::vector<int32_t>> JsonFields::IntOrList(absl::string_view name, int32_t min,
                                                           int32_t max) {
  const nlohmann::json* field = Find(name);
  std::vector<int32_t> values;
  if (field == nullptr) {
    return values;
  }
  const nlohmann::json list = field->is_array() ? *field : nlohmann::json::array({*field});
  for (const nlohmann::json& item : list) {
    if (!item.is_number_integer() || item.get<double>() < min || item.get<double>() > max) {
      return Invalid(name, absl::StrCat("want integers from ", min, " to ", max));
    }
    values.push_back(item.get<int32_t>());
  }
  return values;
}

std::vector<std::string> JsonFields::unread() const {
  std::vector<std::string> names;
  for (const auto& [name, value] : object_->items()) {
    if (!read_.contains(name) && !value.is_null()) {
      names.push_back(name);
    }
  }
  return names;
}

}  // namespace tenon
