#include "client/tenonctl/adapter_table.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "client/tenonctl/output.h"

namespace tenon {
namespace {

std::string VersionOf(const google::protobuf::Map<std::string, int64_t>& aliases,
                      const std::string& alias) {
  const auto found = aliases.find(alias);
  return found == aliases.end() ? "none" : absl::StrCat(found->second);
}

// Versions that came, went or changed their state.
void CompareVersions(const v1::NamedAdapter& before, const v1::NamedAdapter& after,
                     std::vector<std::string>& lines) {
  std::map<int64_t, v1::AdapterState> states;
  for (const v1::Adapter& version : before.versions()) {
    states[version.version()] = version.state();
  }
  for (const v1::Adapter& version : after.versions()) {
    const auto known = states.find(version.version());
    if (known == states.end() || known->second != version.state()) {
      lines.push_back(
          absl::StrCat(after.name(), "@", version.version(), " is ", StateWord(version)));
    }
    states.erase(version.version());
  }
  for (const auto& [version, state] : states) {
    lines.push_back(absl::StrCat(after.name(), "@", version, " is deleted"));
  }
}

void CompareAliases(const v1::NamedAdapter& before, const v1::NamedAdapter& after,
                    std::vector<std::string>& lines) {
  std::set<std::string> aliases;
  for (const v1::NamedAdapter* name : {&before, &after}) {
    for (const auto& [alias, version] : name->aliases()) {
      aliases.insert(alias);
    }
  }
  for (const std::string& alias : aliases) {
    const std::string from = VersionOf(before.aliases(), alias);
    const std::string to = VersionOf(after.aliases(), alias);
    if (from != to) {
      lines.push_back(absl::StrCat(after.name(), ": ", alias, " ", from, " -> ", to));
    }
  }
}

}  // namespace

std::string FormatSplit(const google::protobuf::RepeatedPtrField<v1::SplitArm>& arms) {
  std::vector<std::string> parts;
  for (const v1::SplitArm& arm : arms) {
    parts.push_back(absl::StrCat(arm.alias(), " ", arm.percent(), "%"));
  }
  return parts.empty() ? "" : absl::StrCat(absl::StrJoin(parts, ", "), ", latest the rest");
}

std::vector<std::string> AdapterTable::Apply(const v1::WatchAdaptersResponse& message) {
  std::vector<std::string> lines;
  if (complete_ || message.reset()) {
    changed_.clear();
  }
  if (message.reset()) {
    unseen_.clear();
    for (const auto& [name, known] : names_) {
      unseen_.insert(name);
    }
  }
  for (const v1::NamedAdapter& name : message.names()) {
    unseen_.erase(name.name());
    TakeName(name, lines);
  }
  for (const std::string& name : message.removed()) {
    DropName(name, lines);
  }
  complete_ = message.complete();
  generation_ = message.generation();
  if (complete_) {
    for (const std::string& name : std::exchange(unseen_, {})) {
      DropName(name, lines);
    }
  }
  return lines;
}

void AdapterTable::TakeName(const v1::NamedAdapter& name, std::vector<std::string>& lines) {
  v1::NamedAdapter& known = names_[name.name()];
  const size_t before = lines.size();
  CompareVersions(known, name, lines);
  CompareAliases(known, name, lines);
  const std::string split = FormatSplit(name.split());
  if (split != FormatSplit(known.split())) {
    lines.push_back(absl::StrCat(name.name(), ": split ", split.empty() ? "ended" : split));
  }
  if (lines.size() > before) {
    changed_.insert(name.name());
  }
  known = name;
}

void AdapterTable::DropName(const std::string& name, std::vector<std::string>& lines) {
  if (names_.erase(name) > 0) {
    lines.push_back(absl::StrCat(name, " is deleted"));
  }
}

std::string AdapterTable::Render(bool with_colour, size_t max_rows) const {
  std::vector<std::vector<std::string>> rows = {
      {"NAME", "VERSION", "ALIASES", "STATE", "METHOD", "SIZE", "SPLIT"}};
  std::vector<bool> bold = {false};
  size_t num_versions = 0;
  for (const auto& [key, name] : names_) {
    num_versions += static_cast<size_t>(name.versions_size());
    for (int i = name.versions_size() - 1; i >= 0 && rows.size() <= max_rows; --i) {
      const v1::Adapter& version = name.versions(i);
      rows.push_back({key, absl::StrCat(version.version()), absl::StrJoin(version.aliases(), ", "),
                      StateWord(version), version.method(), FormatBytes(version.stored_bytes()),
                      i == name.versions_size() - 1 ? FormatSplit(name.split()) : ""});
      bold.push_back(with_colour && changed_.contains(key));
    }
  }
  const std::string table = FormatTable(rows);
  std::string text;
  size_t row = 0;
  for (const absl::string_view line : absl::StrSplit(table, '\n', absl::SkipEmpty())) {
    const bool is_bold = row < bold.size() && bold[row++];
    absl::StrAppend(&text, is_bold ? "\x1b[1m" : "", line, is_bold ? "\x1b[0m" : "", "\n");
  }
  if (num_versions + 1 > rows.size()) {
    absl::StrAppend(&text, "... and ", num_versions + 1 - rows.size(), " more\n");
  }
  return text;
}

}  // namespace tenon
