#include "adapters/formats/checked_json.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"

namespace tenon {
namespace {

absl::Status Malformed(absl::string_view file_name, absl::string_view message) {
  return InvalidAdapterError("MALFORMED_JSON", file_name, absl::StrCat(file_name, ": ", message));
}

// Receives JSON events and stops at the first breach of the limits or second use of a key.
class JsonChecker {
 public:
  JsonChecker(absl::string_view file_name, const JsonLimits& limits)
      : file_name_(file_name), limits_(limits) {}

  const absl::Status& status() const { return status_; }

  // The SAX interface of nlohmann::json; false stops the parse.
  bool null() { return Value(); }
  bool boolean(bool) { return Value(); }
  bool number_integer(int64_t) { return Value(); }
  bool number_unsigned(uint64_t) { return Value(); }
  bool number_float(double, const std::string&) { return Value(); }
  bool string(std::string&) { return Value(); }
  bool binary(nlohmann::json::binary_t&) { return Value(); }
  bool start_object(size_t) { return Open(); }
  bool end_object() { return Close(); }
  bool start_array(size_t) { return !open_.empty() ? Open() : Value(); }
  bool end_array() { return Close(); }
  bool key(std::string& name) {
    if (!open_.back().insert(name).second) {
      return Fail(absl::StrCat("key ", Quoted(name), " appears twice"));
    }
    if (++num_keys_ > limits_.max_keys || open_.back().size() > limits_.max_keys_per_object) {
      return Fail(absl::StrCat("more than ", limits_.max_keys_per_object, " keys in one object or ",
                               limits_.max_keys, " in all"));
    }
    return true;
  }
  bool parse_error(size_t position, const std::string&, const nlohmann::json::exception&) {
    return Fail(absl::StrCat("not valid JSON at byte ", position));
  }

 private:
  bool Fail(absl::string_view message) {
    status_ = Malformed(file_name_, message);
    return false;
  }
  bool Value() { return !open_.empty() || Fail("not a JSON object"); }
  bool Open() {
    open_.emplace_back();
    return open_.size() <= limits_.max_depth ||
           Fail(absl::StrCat("nested deeper than ", limits_.max_depth));
  }
  bool Close() {
    open_.pop_back();
    return true;
  }

  const absl::string_view file_name_;
  const JsonLimits limits_;
  absl::Status status_;
  size_t num_keys_ = 0;
  std::vector<absl::flat_hash_set<std::string>> open_;  // keys so far of each open container
};

}  // namespace

absl::StatusOr<nlohmann::ordered_json> ParseCheckedJson(absl::string_view file_name,
                                                        std::span<const std::byte> bytes,
                                                        const JsonLimits& limits) {
  const absl::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (static_cast<int64_t>(text.size()) > limits.max_bytes) {
    return Malformed(file_name, absl::StrCat(text.size(), " bytes exceed the limit of ",
                                             limits.max_bytes, " bytes"));
  }
  // The JSON lexer takes a NUL byte for the end of its input and would not see what follows.
  if (const size_t nul = text.find('\0'); nul != absl::string_view::npos) {
    return Malformed(file_name, absl::StrCat("NUL byte at byte ", nul));
  }
  JsonChecker checker(file_name, limits);
  nlohmann::json::sax_parse(text.begin(), text.end(), &checker);
  TENON_RETURN_IF_ERROR(checker.status());
  return nlohmann::ordered_json::parse(text.begin(), text.end(), nullptr,
                                       /*allow_exceptions=*/false);
}

std::string QuotedJson(const nlohmann::ordered_json& value) {
  const std::string text =
      value.dump(-1, ' ', /*ensure_ascii=*/true, nlohmann::ordered_json::error_handler_t::replace);
  constexpr size_t kMaxBytes = 120;
  return text.size() <= kMaxBytes ? text : absl::StrCat(text.substr(0, kMaxBytes), "...");
}

}  // namespace tenon
