// AdapterTable: what `tenonctl adapters watch` knows and shows.
#ifndef TENON_CLIENT_TENONCTL_ADAPTER_TABLE_H_
#define TENON_CLIENT_TENONCTL_ADAPTER_TABLE_H_

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "tenon/v1/adapters.pb.h"

namespace tenon {

/// The caller's set of adapters, kept up to date by the messages of WatchAdapters. Not thread-safe.
class AdapterTable {
 public:
  /// Takes a message in. Returns what it changed, a line each: "fr@3 is live", "fr: latest 2 -> 3";
  /// the lines of a full set only where it differs from what was known.
  std::vector<std::string> Apply(const v1::WatchAdaptersResponse& message);

  int64_t generation() const { return generation_; }
  /// False while parts of a set are missing.
  bool complete() const { return complete_; }

  /// The table, a row a version, newest first within a name. Rows of names that the last message
  /// changed are bold when `with_colour`. At most `max_rows` rows; the rest is counted in a line.
  std::string Render(bool with_colour, size_t max_rows) const;

 private:
  void TakeName(const v1::NamedAdapter& name, std::vector<std::string>& lines);
  void DropName(const std::string& name, std::vector<std::string>& lines);

  std::map<std::string, v1::NamedAdapter> names_;
  std::set<std::string> changed_;  // names, by the last message
  std::set<std::string> unseen_;   // names that a full set has not brought yet
  int64_t generation_ = 0;
  bool complete_ = false;
};

/// "canary 5%, next 10%, latest the rest"; "" for no split.
std::string FormatSplit(const google::protobuf::RepeatedPtrField<v1::SplitArm>& arms);

}  // namespace tenon

#endif  // TENON_CLIENT_TENONCTL_ADAPTER_TABLE_H_
