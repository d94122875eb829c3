// The catalogue's aliases, splits and history.
#include <algorithm>
#include <optional>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "adapters/base/errors.h"
#include "adapters/base/json_text.h"
#include "adapters/base/status_macros.h"
#include "adapters/store/alias_errors.h"
#include "adapters/store/catalogue.h"
#include "nlohmann/json.hpp"

namespace tenon {
namespace {

std::string SplitToJson(const std::vector<SplitArm>& split) {
  nlohmann::json json = nlohmann::json::array();
  for (const SplitArm& arm : split) {
    json.push_back({{"alias", arm.alias}, {"basis_points", arm.basis_points}});
  }
  return JsonText(json);
}

// What is no split reads as none.
std::vector<SplitArm> SplitFromJson(const std::string& text) {
  std::vector<SplitArm> split;
  const nlohmann::json json = ParseJson(text);
  for (const nlohmann::json& arm : json) {
    if (arm.is_object() && arm.contains("alias") && arm["alias"].is_string() &&
        arm.contains("basis_points") && arm["basis_points"].is_number_integer()) {
      split.push_back({arm["alias"].get<std::string>(), arm["basis_points"].get<int32_t>()});
    }
  }
  return ValidateSplit("split", split).ok() ? split : std::vector<SplitArm>();
}

std::string SplitText(const std::vector<SplitArm>& split) {
  std::string text;
  for (const SplitArm& arm : split) {
    absl::StrAppend(&text, text.empty() ? "" : " ", arm.alias, "=", arm.basis_points / 100.0, "%");
  }
  return text.empty() ? "none" : text;
}

void BindName(SqliteStatement& statement, absl::string_view tenant, absl::string_view name) {
  statement.Bind(1, tenant);
  statement.Bind(2, name);
}

absl::StatusOr<AliasChange> ReadChange(const SqliteStatement& row) {
  TENON_ASSIGN_OR_RETURN(const AliasAction action, ParseAliasAction(row.Text(3)));
  return AliasChange{row.Int(0),  absl::FromUnixNanos(row.Int(1)),
                     row.Text(2), action,
                     row.Text(4), row.Int(5),
                     row.Int(6),  row.Text(7)};
}

}  // namespace

absl::StatusOr<int64_t> Catalogue::AliasTarget(const AliasMove& move) {
  TENON_ASSIGN_OR_RETURN(
      SqliteStatement row,
      db_.Prepare("SELECT version FROM aliases WHERE tenant = ? AND name = ? AND alias = ?"));
  BindName(row, move.tenant, move.name);
  row.Bind(3, move.alias);
  TENON_ASSIGN_OR_RETURN(const bool found, row.Step());
  return found ? row.Int(0) : 0;
}

absl::StatusOr<AliasChange> Catalogue::PointAlias(const AliasMove& move, absl::Time now) {
  TENON_RETURN_IF_ERROR(ValidateAlias("alias", move.alias));
  TENON_ASSIGN_OR_RETURN(const int64_t current, AliasTarget(move));
  AliasChange change{0, now, move.actor, move.action, move.alias, current, move.version, ""};
  if (move.version != 0) {
    TENON_RETURN_IF_ERROR(Find({move.tenant, move.name, move.version}).status());
    if (current == move.version) {
      return change;
    }
  }
  if (move.expected_version.has_value() && *move.expected_version != current) {
    return LostRace(move, current);
  }
  if (move.version == 0 && current == 0) {
    return ResourceNotFoundError("ALIAS_NOT_FOUND", AliasOf(move),
                                 absl::StrCat("alias ", AliasOf(move), " does not exist"));
  }
  TENON_RETURN_IF_ERROR(WriteAlias(move));
  return change;
}

absl::Status Catalogue::WriteAlias(const AliasMove& move) {
  if (move.version == 0) {
    TENON_ASSIGN_OR_RETURN(
        SqliteStatement remove,
        db_.Prepare("DELETE FROM aliases WHERE tenant = ? AND name = ? AND alias = ?"));
    BindName(remove, move.tenant, move.name);
    remove.Bind(3, move.alias);
    return remove.Run();
  }
  {
    TENON_ASSIGN_OR_RETURN(
        SqliteStatement write,
        db_.Prepare("INSERT INTO aliases VALUES (?, ?, ?, ?) ON CONFLICT (tenant, name, alias) DO "
                    "UPDATE SET version = excluded.version"));
    BindName(write, move.tenant, move.name);
    write.Bind(3, move.alias);
    write.Bind(4, move.version);
    TENON_RETURN_IF_ERROR(write.Run());
  }
  TENON_ASSIGN_OR_RETURN(SqliteStatement count,
                         db_.Prepare("SELECT count(*) FROM aliases WHERE tenant = ? AND name = ?"));
  BindName(count, move.tenant, move.name);
  TENON_RETURN_IF_ERROR(count.Step().status());
  if (count.Int(0) > kMaxAliases) {
    return QuotaExceededError(
        "ALIASES_PER_ADAPTER", "aliases",
        absl::StrCat("adapter ", move.name, " would have ", count.Int(0), " aliases, the limit is ",
                     kMaxAliases, "; remove some first"));
  }
  return absl::OkStatus();
}

absl::Status Catalogue::CheckUnused(const AdapterId& id) {
  TENON_ASSIGN_OR_RETURN(SqliteStatement row,
                         db_.Prepare("SELECT alias FROM aliases WHERE tenant = ? AND name = ? AND "
                                     "version = ? ORDER BY alias"));
  BindName(row, id.tenant, id.name);
  row.Bind(3, id.version);
  std::string aliases;
  while (true) {
    TENON_ASSIGN_OR_RETURN(const bool more, row.Step());
    if (!more) {
      break;
    }
    absl::StrAppend(&aliases, aliases.empty() ? "" : ", ", row.Text(0));
  }
  if (aliases.empty()) {
    return absl::OkStatus();
  }
  return PreconditionError(
      "VERSION_IN_USE", absl::StrCat(id.name, "@", id.version),
      absl::StrCat("version ", id.version, " of ", id.name, " is what ", aliases,
                   " points to; promote another one first, or force"));
}

absl::Status Catalogue::Record(absl::string_view tenant, absl::string_view name,
                               AliasChange& change) {
  {
    TENON_ASSIGN_OR_RETURN(
        SqliteStatement insert,
        db_.Prepare("INSERT INTO history (tenant, name, action, alias, from_version, to_version, "
                    "actor, details, time_ns) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"));
    BindName(insert, tenant, name);
    insert.Bind(3, AliasActionName(change.action));
    insert.Bind(4, change.alias);
    insert.Bind(5, change.from);
    insert.Bind(6, change.to);
    insert.Bind(7, change.actor);
    insert.Bind(8, change.details);
    insert.Bind(9, absl::ToUnixNanos(change.time));
    TENON_RETURN_IF_ERROR(insert.Run());
    change.sequence = db_.last_insert_rowid();
  }
  {
    TENON_ASSIGN_OR_RETURN(
        SqliteStatement trim,
        db_.Prepare("DELETE FROM history WHERE tenant = ?1 AND name = ?2 AND id <= (SELECT id FROM "
                    "history WHERE tenant = ?1 AND name = ?2 ORDER BY id DESC LIMIT 1 OFFSET ?3)"));
    BindName(trim, tenant, name);
    trim.Bind(3, kMaxHistory);
    TENON_RETURN_IF_ERROR(trim.Run());
  }
  TENON_ASSIGN_OR_RETURN(
      SqliteStatement next,
      db_.Prepare("UPDATE names SET generation = 1 + (SELECT max(generation) FROM names WHERE "
                  "tenant = ?1) WHERE tenant = ?1 AND name = ?2"));
  BindName(next, tenant, name);
  return next.Run();
}

absl::StatusOr<NameChange> Catalogue::MoveAlias(const AliasMove& move, absl::Time now) {
  TENON_ASSIGN_OR_RETURN(SqliteTransaction transaction, SqliteTransaction::Begin(&db_));
  NameChange result;
  TENON_ASSIGN_OR_RETURN(result.change, PointAlias(move, now));
  if (result.change.from != result.change.to) {
    TENON_RETURN_IF_ERROR(Record(move.tenant, move.name, result.change));
  }
  TENON_ASSIGN_OR_RETURN(result.after, Name(move.tenant, move.name));
  TENON_RETURN_IF_ERROR(transaction.Commit());
  return result;
}

absl::Status Catalogue::WriteSplit(absl::string_view tenant, absl::string_view name,
                                   const std::vector<SplitArm>& split) {
  TENON_ASSIGN_OR_RETURN(
      SqliteStatement write,
      db_.Prepare("UPDATE names SET split = ?3 WHERE tenant = ?1 AND name = ?2"));
  BindName(write, tenant, name);
  write.Bind(3, SplitToJson(split));
  return write.Run();
}

absl::StatusOr<NameChange> Catalogue::SetSplit(absl::string_view tenant, absl::string_view name,
                                               const std::vector<SplitArm>& split,
                                               absl::string_view actor, absl::Time now) {
  TENON_ASSIGN_OR_RETURN(SqliteTransaction transaction, SqliteTransaction::Begin(&db_));
  NameChange result;
  TENON_ASSIGN_OR_RETURN(result.after, Name(tenant, name));
  if (result.after.versions.empty()) {
    return ResourceNotFoundError("ADAPTER_NOT_FOUND", name,
                                 absl::StrCat("adapter ", name, " has no versions"));
  }
  if (result.after.pointers.split == split) {
    return result;
  }
  TENON_RETURN_IF_ERROR(WriteSplit(tenant, name, split));
  result.change =
      AliasChange{0, now, std::string(actor), AliasAction::kSplit, "", 0, 0, SplitText(split)};
  TENON_RETURN_IF_ERROR(Record(tenant, name, result.change));
  TENON_ASSIGN_OR_RETURN(result.after, Name(tenant, name));
  TENON_RETURN_IF_ERROR(transaction.Commit());
  return result;
}

absl::StatusOr<std::vector<AliasChange>> Catalogue::History(absl::string_view tenant,
                                                            absl::string_view name) {
  TENON_ASSIGN_OR_RETURN(
      SqliteStatement row,
      db_.Prepare("SELECT id, time_ns, actor, action, alias, from_version, to_version, details "
                  "FROM history WHERE tenant = ? AND name = ? ORDER BY id"));
  BindName(row, tenant, name);
  return ReadAll<AliasChange>(row, ReadChange);
}

absl::StatusOr<AdapterName> Catalogue::Name(absl::string_view tenant, absl::string_view name) {
  TENON_ASSIGN_OR_RETURN(std::vector<AdapterName> names, Pointers(tenant, name));
  AdapterName result;
  if (!names.empty()) {
    result = std::move(names.front());
  }
  result.tenant = std::string(tenant);
  result.name = std::string(name);
  TENON_ASSIGN_OR_RETURN(std::vector<AdapterInfo> infos, Versions(tenant, name));
  for (AdapterInfo& info : infos) {
    const int64_t version = info.id.version;
    result.versions.emplace(version, std::make_shared<const AdapterInfo>(std::move(info)));
  }
  return result;
}

absl::StatusOr<std::vector<AdapterName>> Catalogue::Names() {
  TENON_ASSIGN_OR_RETURN(std::vector<AdapterName> names, Pointers("", ""));
  TENON_ASSIGN_OR_RETURN(std::vector<AdapterInfo> infos, Versions("", ""));
  auto name = names.begin();  // both in the same order
  for (AdapterInfo& info : infos) {
    while (name != names.end() &&
           std::tie(name->tenant, name->name) != std::tie(info.id.tenant, info.id.name)) {
      ++name;
    }
    if (name == names.end()) {
      return absl::DataLossError(absl::StrCat("adapter catalogue: version ", info.id.ToString(),
                                              " has no row of its name"));
    }
    const int64_t version = info.id.version;
    name->versions.emplace(version, std::make_shared<const AdapterInfo>(std::move(info)));
  }
  return names;
}

absl::StatusOr<std::vector<AdapterName>> Catalogue::Pointers(absl::string_view tenant,
                                                             absl::string_view name) {
  const bool all = tenant.empty();
  TENON_ASSIGN_OR_RETURN(
      SqliteStatement row,
      db_.Prepare(absl::StrCat(
          "SELECT names.tenant, names.name, generation, split, alias, version FROM names LEFT JOIN "
          "aliases ON aliases.tenant = names.tenant AND aliases.name = names.name ",
          all ? "" : "WHERE names.tenant = ? AND names.name = ? ",
          "ORDER BY names.tenant, names.name")));
  if (!all) {
    BindName(row, tenant, name);
  }
  std::vector<AdapterName> names;
  while (true) {
    TENON_ASSIGN_OR_RETURN(const bool more, row.Step());
    if (!more) {
      return names;
    }
    if (names.empty() || names.back().tenant != row.Text(0) || names.back().name != row.Text(1)) {
      AdapterName& next = names.emplace_back();
      next.tenant = row.Text(0);
      next.name = row.Text(1);
      next.generation = row.Int(2);
      next.pointers.split = SplitFromJson(row.Text(3));
    }
    if (!row.Text(4).empty()) {
      names.back().pointers.aliases.emplace(row.Text(4), row.Int(5));
    }
  }
}

}  // namespace tenon
