#include "adapters/formats/peft_patterns.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"

namespace tenon {
namespace {

constexpr size_t kMaxPatternBytes = 4096;
constexpr int64_t kRegexBytes = 256 << 10;  // program and automaton of one expression

absl::Status Unsupported(absl::string_view field, absl::string_view pattern,
                         absl::string_view why) {
  return InvalidAdapterError("UNSUPPORTED_PATTERN", field,
                             absl::StrCat(field, ": pattern ", Quoted(pattern), " ", why));
}

re2::StringPiece Piece(absl::string_view text) { return {text.data(), text.size()}; }

bool IsPlain(char c) { return absl::ascii_isalnum(c) || c == '.' || c == '_' || c == '-'; }

// Whether `module` is `pattern`, or ends in it after a dot; a '.' of the pattern matches anything.
bool EndsWithPlain(absl::string_view module, absl::string_view pattern) {
  if (module.size() < pattern.size()) {
    return false;
  }
  const size_t start = module.size() - pattern.size();
  if (start > 0 && module[start - 1] != '.') {
    return false;
  }
  return std::equal(pattern.begin(), pattern.end(), module.begin() + start,
                    [](char p, char m) { return p == '.' || p == m; });
}

}  // namespace

absl::StatusOr<PythonRegex> PythonRegex::Create(absl::string_view field, absl::string_view pattern,
                                                absl::string_view before, absl::string_view after) {
  if (pattern.size() > kMaxPatternBytes) {
    return Unsupported(field, pattern,
                       absl::StrCat("exceeds the limit of ", kMaxPatternBytes, " bytes"));
  }
  // Python reads the first as a set of characters and the second as "at most"; RE2 does not.
  for (absl::string_view differs : {"[:", "{,"}) {
    if (absl::StrContains(pattern, differs)) {
      return Unsupported(field, pattern, absl::StrCat("uses \"", differs, "\", not supported"));
    }
  }
  RE2::Options options(RE2::Quiet);
  options.set_max_mem(kRegexBytes);
  auto regex = std::make_unique<const RE2>(Piece(absl::StrCat(before, pattern, after)), options);
  if (!regex->ok()) {
    return Unsupported(
        field, pattern,
        absl::StrCat("is not a regular expression that can be matched (", Quoted(regex->error()),
                     "); look-around and back-references are not supported"));
  }
  return PythonRegex(std::move(regex));
}

bool PythonRegex::FullMatch(absl::string_view text) const {
  return regex_->Match(Piece(text), 0, text.size(), RE2::ANCHOR_BOTH, nullptr, 0);
}

bool PythonRegex::MatchesPrefix(absl::string_view text) const {
  return regex_->Match(Piece(text), 0, text.size(), RE2::ANCHOR_START, nullptr, 0);
}

std::optional<int64_t> PythonRegex::MatchIndex(absl::string_view text) const {
  const auto& groups = regex_->NamedCapturingGroups();
  const auto group = groups.find("idx");
  if (group == groups.end()) {
    return std::nullopt;
  }
  std::vector<re2::StringPiece> matches(regex_->NumberOfCapturingGroups() + 1);
  if (!regex_->Match(Piece(text), 0, text.size(), RE2::ANCHOR_START, matches.data(),
                     static_cast<int>(matches.size()))) {
    return std::nullopt;
  }
  const re2::StringPiece& match = matches[group->second];
  int64_t index = 0;
  if (!absl::SimpleAtoi(absl::string_view(match.data(), match.size()), &index)) {
    return std::nullopt;
  }
  return index;
}

ModuleNames::ModuleNames(std::vector<std::string> suffixes)
    : suffixes_(std::move(suffixes)), suffix_set_(suffixes_.begin(), suffixes_.end()) {}

bool ModuleNames::Matches(absl::string_view module) const {
  if (regex_.has_value()) {
    return regex_->FullMatch(module);
  }
  if (MatchesWholeName(module)) {
    return true;
  }
  for (size_t dot = module.find('.'); dot != absl::string_view::npos;
       dot = module.find('.', dot + 1)) {
    if (suffix_set_.contains(module.substr(dot + 1))) {
      return true;
    }
  }
  return false;
}

bool ModuleNames::MatchesWholeName(absl::string_view module) const {
  return suffix_set_.contains(module);
}

bool TargetModules::Matches(absl::string_view module) const {
  if (excluded.Matches(module)) {
    return false;
  }
  if (all_linear) {
    return module != "lm_head" && !absl::EndsWith(module, ".lm_head");
  }
  if (!names.Matches(module)) {
    return false;
  }
  if (layers.empty() || names.is_regex() || names.MatchesWholeName(module)) {
    return true;  // PEFT does not look at the layer of a module that is listed by its whole name
  }
  for (const PythonRegex& pattern : layer_patterns) {
    if (pattern.MatchesPrefix(module)) {
      const std::optional<int64_t> layer = pattern.MatchIndex(module);
      return layer.has_value() && std::find(layers.begin(), layers.end(), *layer) != layers.end();
    }
  }
  return false;
}

int64_t TargetModules::cost() const {
  int64_t cost = names.cost() + excluded.cost();
  for (const PythonRegex& pattern : layer_patterns) {
    cost += 2 * pattern.cost();
  }
  return cost;
}

absl::Status PatternTable::Add(absl::string_view field, absl::string_view pattern, double value) {
  Entry entry;
  entry.value = value;
  if (std::all_of(pattern.begin(), pattern.end(), IsPlain)) {
    entry.plain = std::string(pattern);
    cost_ += 1;
  } else {
    TENON_ASSIGN_OR_RETURN(entry.regex, PythonRegex::Create(field, pattern, "(.*\\.)?(", ")$"));
    cost_ += entry.regex->cost();
  }
  entries_.push_back(std::move(entry));
  return absl::OkStatus();
}

std::optional<double> PatternTable::Find(absl::string_view module) const {
  for (const Entry& entry : entries_) {
    if (entry.regex.has_value() ? entry.regex->MatchesPrefix(module)
                                : EndsWithPlain(module, entry.plain)) {
      return entry.value;
    }
  }
  return std::nullopt;
}

}  // namespace tenon
