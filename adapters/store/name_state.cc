#include "adapters/store/name_state.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"
#include "adapters/store/alias_errors.h"

namespace tenon {
namespace {

std::string SplitText(const std::vector<SplitArm>& split) {
  const std::string text = absl::StrJoin(split, " ", [](std::string* out, const SplitArm& arm) {
    absl::StrAppend(out, arm.alias, "=", arm.basis_points / 100.0, "%");
  });
  return text.empty() ? "none" : text;
}

absl::Status VersionNotFound(const NameState& state, int64_t version) {
  const std::string subject = absl::StrCat(state.tenant, "/", state.name, "@", version);
  return ResourceNotFoundError("ADAPTER_NOT_FOUND", subject,
                               absl::StrCat("adapter ", subject, " is not in the store"));
}

absl::Status NoVersions(const NameState& state) {
  return ResourceNotFoundError("ADAPTER_NOT_FOUND", state.name,
                               absl::StrCat("adapter ", state.name, " has no versions"));
}

}  // namespace

int64_t NameState::VersionWith(absl::string_view digest) const {
  const auto found = std::find_if(versions.rbegin(), versions.rend(), [&](const auto& entry) {
    return entry.second.info.digest == digest;
  });
  return found == versions.rend() ? 0 : found->first;
}

void NameState::Record(AliasChange& change) {
  change.sequence = ++changes;
  history.push_back(change);
  if (history.size() > static_cast<size_t>(kMaxHistory)) {
    history.erase(history.begin());
  }
}

absl::StatusOr<AliasChange> NameState::Point(const AliasMove& move, absl::Time now) {
  TENON_RETURN_IF_ERROR(ValidateAlias("alias", move.alias));
  const auto there = pointers.aliases.find(move.alias);
  const int64_t current = there == pointers.aliases.end() ? 0 : there->second;
  AliasChange change{0, now, move.actor, move.action, move.alias, current, move.version, ""};
  if (move.version != 0) {
    if (!versions.contains(move.version)) {
      return VersionNotFound(*this, move.version);
    }
    if (current == move.version) {
      return change;
    }
  }
  if (move.expected_version.has_value() && *move.expected_version != current) {
    return LostRace(move, current);
  }
  if (move.version == 0) {
    if (current == 0) {
      return ResourceNotFoundError("ALIAS_NOT_FOUND", AliasOf(move),
                                   absl::StrCat("alias ", AliasOf(move), " does not exist"));
    }
    pointers.aliases.erase(there);
    return change;
  }
  pointers.aliases.insert_or_assign(move.alias, move.version);
  if (pointers.aliases.size() > static_cast<size_t>(kMaxAliases)) {
    return QuotaExceededError(
        "ALIASES_PER_ADAPTER", "aliases",
        absl::StrCat("adapter ", name, " would have ", pointers.aliases.size(),
                     " aliases, the limit is ", kMaxAliases, "; remove some first"));
  }
  return change;
}

absl::StatusOr<AliasChange> NameState::Add(StoredVersion version, const CommitOrder& order,
                                           absl::Time now) {
  const int64_t number = version.info.id.version;
  const bool created = !versions.contains(number);
  if (created) {
    last_version = std::max(last_version, number);
    versions.emplace(number, std::move(version));
  }
  AliasChange change{0, now, order.actor, AliasAction::kUpload, "", 0, number, ""};
  if (!order.alias.empty()) {
    const AliasMove move{
        tenant,     name, order.alias, number, order.expected_version, AliasAction::kUpload,
        order.actor};
    TENON_ASSIGN_OR_RETURN(change, Point(move, now));
  }
  if (created || (!order.alias.empty() && change.from != change.to)) {
    Record(change);
  }
  return change;
}

absl::StatusOr<AliasChange> NameState::MoveAlias(const AliasMove& move, absl::Time now) {
  TENON_ASSIGN_OR_RETURN(AliasChange change, Point(move, now));
  if (change.from != change.to) {
    Record(change);
  }
  return change;
}

absl::StatusOr<AliasChange> NameState::SetSplit(const std::vector<SplitArm>& split,
                                                absl::string_view actor, absl::Time now) {
  if (versions.empty()) {
    return NoVersions(*this);
  }
  AliasChange change{0, now, std::string(actor), AliasAction::kSplit, "", 0, 0, SplitText(split)};
  if (pointers.split != split) {
    pointers.split = split;
    Record(change);
  }
  return change;
}

absl::Status NameState::CheckUnused(int64_t version) const {
  std::vector<absl::string_view> users;
  for (const auto& [alias, target] : pointers.aliases) {
    if (target == version) {
      users.push_back(alias);
    }
  }
  if (users.empty()) {
    return absl::OkStatus();
  }
  return PreconditionError(
      "VERSION_IN_USE", absl::StrCat(name, "@", version),
      absl::StrCat("version ", version, " of ", name, " is what ", absl::StrJoin(users, ", "),
                   " points to; promote another one first, or force"));
}

absl::StatusOr<AliasChange> NameState::Remove(int64_t version, const std::vector<AliasMove>& moves,
                                              absl::string_view actor, absl::Time now) {
  for (const AliasMove& move : moves) {
    TENON_RETURN_IF_ERROR(MoveAlias(move, now).status());
  }
  TENON_RETURN_IF_ERROR(CheckUnused(version));
  if (versions.erase(version) == 0) {
    return VersionNotFound(*this, version);
  }
  AliasChange change{0, now, std::string(actor), AliasAction::kDelete, "", version, 0, ""};
  Record(change);
  return change;
}

absl::StatusOr<AliasChange> NameState::RemoveAll(absl::string_view actor, absl::Time now) {
  if (versions.empty()) {
    return NoVersions(*this);
  }
  const AdapterPointers before = std::exchange(pointers, {});
  for (const auto& [alias, target] : before.aliases) {
    AliasChange change{0, now, std::string(actor), AliasAction::kDelete, alias, target, 0, ""};
    Record(change);
  }
  AliasChange last;
  for (const auto& [version, stored] : std::exchange(versions, {})) {
    last = AliasChange{0, now, std::string(actor), AliasAction::kDelete, "", version, 0, ""};
    Record(last);
  }
  return last;
}

AdapterName NameState::ToName(int64_t generation) const {
  AdapterName out;
  out.tenant = tenant;
  out.name = name;
  out.generation = generation;
  out.pointers = pointers;
  for (const auto& [number, version] : versions) {
    out.versions.emplace(number, std::make_shared<const AdapterInfo>(version.info));
  }
  return out;
}

}  // namespace tenon
