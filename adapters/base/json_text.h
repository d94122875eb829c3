// JSON to and from text. The parser and the writer are compiled here once: in each file that uses
// them they cost seconds.
#ifndef TENON_ADAPTERS_BASE_JSON_TEXT_H_
#define TENON_ADAPTERS_BASE_JSON_TEXT_H_

#include <string>

#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace tenon {

/// A discarded value (is_discarded(), and of no type) for what is no JSON. Does not throw.
nlohmann::json ParseJson(absl::string_view text);

/// Compact. What is no UTF-8 is replaced by U+FFFD. Does not throw.
std::string JsonText(const nlohmann::json& json);

}  // namespace tenon

#endif  // TENON_ADAPTERS_BASE_JSON_TEXT_H_
