// How PEFT's configuration names modules: suffix lists, regular expressions, layer numbers.
//
// PEFT matches with Python's `re`; these classes match with RE2, in time linear in the name. What
// RE2 cannot do (look-around, back-references) or would read differently is refused. Semantics are
// those of peft 0.21 (tuners_utils.check_target_module_exists, other.get_pattern_key).
#ifndef TENON_ADAPTERS_FORMATS_PEFT_PATTERNS_H_
#define TENON_ADAPTERS_FORMATS_PEFT_PATTERNS_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "re2/re2.h"

namespace tenon {

/// A regular expression as Python wrote it. Immutable; move-only.
class PythonRegex {
 public:
  /// `pattern` is compiled between `before` and `after`, joined as text, as PEFT does.
  /// INVALID_ARGUMENT (reason UNSUPPORTED_PATTERN), naming `field` and the pattern.
  static absl::StatusOr<PythonRegex> Create(absl::string_view field, absl::string_view pattern,
                                            absl::string_view before = "",
                                            absl::string_view after = "");

  bool FullMatch(absl::string_view text) const;  ///< re.fullmatch
  /// re.match, and the group named `idx` as a number; nothing when either fails.
  std::optional<int64_t> MatchIndex(absl::string_view text) const;
  bool MatchesPrefix(absl::string_view text) const;  ///< re.match

  /// Instructions of the compiled program: the cost of matching one byte, at worst.
  int64_t cost() const { return regex_->ProgramSize(); }

 private:
  explicit PythonRegex(std::unique_ptr<const RE2> regex) : regex_(std::move(regex)) {}
  std::unique_ptr<const RE2> regex_;  // never null, always ok()
};

/// What target_modules (or exclude_modules) may be: a list of name suffixes or one regular
/// expression.
class ModuleNames {
 public:
  ModuleNames() = default;  ///< matches nothing
  explicit ModuleNames(std::vector<std::string> suffixes);
  explicit ModuleNames(PythonRegex regex) : regex_(std::move(regex)) {}

  bool Matches(absl::string_view module) const;
  bool MatchesWholeName(absl::string_view module) const;  ///< a listed name, not as a suffix
  bool is_regex() const { return regex_.has_value(); }
  const std::vector<std::string>& suffixes() const { return suffixes_; }
  int64_t cost() const { return regex_.has_value() ? regex_->cost() : 0; }

 private:
  std::vector<std::string> suffixes_;  // in the file's order
  absl::flat_hash_set<std::string> suffix_set_;
  std::optional<PythonRegex> regex_;
};

/// Which modules an adapter targets: PEFT's check_target_module_exists.
struct TargetModules {
  bool all_linear = false;  ///< "all-linear": every module but the language model head
  ModuleNames names;
  ModuleNames excluded;
  std::vector<int64_t> layers;              ///< layers_to_transform; empty: all
  std::vector<PythonRegex> layer_patterns;  ///< each with a group `idx`, used when `layers` is set

  bool Matches(absl::string_view module) const;
  int64_t cost() const;
};

/// rank_pattern or alpha_pattern: the first pattern, in the file's order, that matches a module's
/// name or the end of it after a dot gives the value (PEFT's get_pattern_key).
class PatternTable {
 public:
  /// INVALID_ARGUMENT, naming `field` and the pattern, when it cannot be matched.
  absl::Status Add(absl::string_view field, absl::string_view pattern, double value);

  std::optional<double> Find(absl::string_view module) const;
  int64_t cost() const { return cost_; }

 private:
  struct Entry {
    std::string plain;                 // used when there is no regex: '.' stands for any character
    std::optional<PythonRegex> regex;  // for patterns with other special characters
    double value = 0;
  };
  std::vector<Entry> entries_;
  int64_t cost_ = 0;
};

}  // namespace tenon

#endif  // TENON_ADAPTERS_FORMATS_PEFT_PATTERNS_H_
