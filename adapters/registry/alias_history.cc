#include "adapters/registry/alias_history.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"

namespace tenon {
namespace {

constexpr struct {
  AliasAction action;
  absl::string_view name;
} kActions[] = {{AliasAction::kUpload, "upload"},
                {AliasAction::kPromote, "promote"},
                {AliasAction::kRollback, "rollback"},
                {AliasAction::kDelete, "delete"},
                {AliasAction::kSplit, "split"}};

// Takes everything above `version` off, and it too: the alias is there again.
void UnwindTo(int64_t version, std::vector<int64_t>& earlier) {
  const auto found = std::find(earlier.rbegin(), earlier.rend(), version);
  if (found == earlier.rend()) {
    earlier.clear();  // it went back beyond what the history remembers
  } else {
    earlier.erase(found.base() - 1, earlier.end());
  }
}

}  // namespace

absl::string_view AliasActionName(AliasAction action) {
  for (const auto& entry : kActions) {
    if (entry.action == action) {
      return entry.name;
    }
  }
  return "";
}

absl::StatusOr<AliasAction> ParseAliasAction(absl::string_view name) {
  for (const auto& entry : kActions) {
    if (entry.name == name) {
      return entry.action;
    }
  }
  return absl::DataLossError(absl::StrCat("no action of a history is called ", Quoted(name)));
}

std::optional<int64_t> RollbackTarget(std::span<const AliasChange> oldest_first,
                                      absl::string_view alias,
                                      const std::function<bool(int64_t version)>& exists) {
  std::vector<int64_t> earlier;
  int64_t current = 0;
  for (const AliasChange& change : oldest_first) {
    if (change.alias != alias || change.action == AliasAction::kSplit) {
      continue;
    }
    const bool back = change.action == AliasAction::kRollback ||
                      (change.action == AliasAction::kDelete && change.to != 0);
    if (back) {
      UnwindTo(change.to, earlier);
    } else if (change.from != 0 && change.from != change.to) {
      earlier.push_back(change.from);
    }
    current = change.to;
  }
  while (!earlier.empty()) {
    if (earlier.back() != current && exists(earlier.back())) {
      return earlier.back();
    }
    earlier.pop_back();
  }
  return std::nullopt;
}

}  // namespace tenon
