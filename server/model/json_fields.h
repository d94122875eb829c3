// JsonFields: reads the fields of one JSON object and remembers which ones were read.
#ifndef TENON_SERVER_MODEL_JSON_FIELDS_H_
#define TENON_SERVER_MODEL_JSON_FIELDS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace tenon {

/// Typed access to one object of a configuration file. A field that is absent or null is "not
/// there". Errors are INVALID_ARGUMENT and name the file, the field and its value.
///
/// Not thread-safe. Borrows `object`, which outlives it.
class JsonFields {
 public:
  /// `where` begins every message: "config.json", "config.json: rope_scaling".
  JsonFields(std::string where, const nlohmann::json* object)
      : where_(std::move(where)), object_(object) {}

  /// The field, or null when it is not there. Marks it as read.
  const nlohmann::json* Find(absl::string_view name);

  /// Whether the file has the field, be it null. Does not mark it as read.
  bool Contains(absl::string_view name) const { return object_->contains(std::string(name)); }

  /// An integer in [min, max].
  absl::StatusOr<int64_t> RequiredInt(absl::string_view name, int64_t min, int64_t max);
  absl::StatusOr<std::optional<int64_t>> OptionalInt(absl::string_view name, int64_t min,
                                                     int64_t max);
  /// A finite number in [min, max].
  absl::StatusOr<double> RequiredNumber(absl::string_view name, double min, double max);
  absl::StatusOr<std::optional<double>> OptionalNumber(absl::string_view name, double min,
                                                       double max);
  absl::StatusOr<bool> Bool(absl::string_view name, bool fallback);
  absl::StatusOr<std::optional<std::string>> OptionalString(absl::string_view name);
  /// One integer or a list of them, each in [min, max]; empty when not there.
  absl::StatusOr<std::vector<int32_t>> IntOrList(absl::string_view name, int32_t min, int32_t max);

  /// Names of the fields that are there and that nobody asked for, in the file's order.
  std::vector<std::string> unread() const;

  /// INVALID_ARGUMENT "where: field 'name' = value: problem".
  absl::Status Invalid(absl::string_view name, absl::string_view problem) const;
  /// FAILED_PRECONDITION "where: field 'name' = value is not implemented".
  absl::Status NotImplemented(absl::string_view name) const;

  const std::string& where() const { return where_; }

 private:
  std::string Describe(absl::string_view name) const;

  std::string where_;
  const nlohmann::json* object_;
  absl::flat_hash_set<std::string> read_;
};

/// Parses a file that holds one JSON object. INVALID_ARGUMENT otherwise, naming `where`.
absl::StatusOr<nlohmann::json> ParseJsonObject(absl::string_view where, absl::string_view text);

}  // namespace tenon

#endif  // TENON_SERVER_MODEL_JSON_FIELDS_H_
