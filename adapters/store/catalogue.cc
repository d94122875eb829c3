#include "adapters/store/catalogue.h"

#include <optional>
#include <type_traits>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "adapters/base/errors.h"
#include "adapters/base/json_text.h"
#include "adapters/base/status_macros.h"
#include "adapters/store/catalogue_schema.h"
#include "nlohmann/json.hpp"

namespace tenon {
namespace {

constexpr absl::string_view kSelectVersion =
    "SELECT id, tenant, name, version, digest, method, num_parameters, max_rank, num_sites, "
    "stored_bytes, resident_bytes, created_ns, warnings, report, acceptance FROM versions ";

std::string WarningsToJson(const std::vector<std::string>& warnings) { return JsonText(warnings); }

// What is not a list of strings reads as none: warnings are only shown.
std::vector<std::string> WarningsFromJson(const std::string& text) {
  std::vector<std::string> warnings;
  const nlohmann::json json = ParseJson(text);
  for (const nlohmann::json& warning : json) {
    if (const auto* value = warning.get_ptr<const std::string*>()) {
      warnings.push_back(*value);
    }
  }
  return warnings;
}

// What compilation found and no query asks for.
std::string ReportToJson(const AdapterInfo& info) {
  return JsonText({{"num_virtual_tokens", info.num_virtual_tokens},
                   {"num_untouched_sites", info.num_untouched_sites},
                   {"delta_norm_bound", info.delta_norm_bound},
                   {"has_weight", info.has_weight}});
}

// What is missing or of another type keeps its default, as for versions of schema 1.
void ReadReport(const std::string& text, AdapterInfo& info) {
  const nlohmann::json json = ParseJson(text);
  const auto read = [&json](const char* name, auto& out) {
    using T = std::remove_reference_t<decltype(out)>;
    if (const auto found = json.find(name);
        found != json.end() && (found->is_number() || found->is_boolean())) {
      out = found->get<T>();
    }
  };
  read("num_virtual_tokens", info.num_virtual_tokens);
  read("num_untouched_sites", info.num_untouched_sites);
  read("delta_norm_bound", info.delta_norm_bound);
  read("has_weight", info.has_weight);
}

// Reads a row of kSelectVersion.
AdapterInfo ReadInfo(const SqliteStatement& row) {
  AdapterInfo info;
  info.id = AdapterId{row.Text(1), row.Text(2), row.Int(3)};
  info.digest = row.Text(4);
  info.method = row.Text(5);
  info.num_parameters = row.Int(6);
  info.max_rank = row.Int(7);
  info.num_sites = row.Int(8);
  info.stored_bytes = row.Int(9);
  info.resident_bytes = row.Int(10);
  info.created = absl::FromUnixNanos(row.Int(11));
  info.warnings = WarningsFromJson(row.Text(12));
  ReadReport(row.Text(13), info);
  info.acceptance = row.Text(14);
  return info;
}

absl::Status NameNotFound(absl::string_view name) {
  return ResourceNotFoundError("ADAPTER_NOT_FOUND", name,
                               absl::StrCat("adapter ", name, " has no versions"));
}

absl::Status VersionNotFound(const AdapterId& id) {
  return ResourceNotFoundError("ADAPTER_NOT_FOUND", id.ToString(),
                               absl::StrCat("adapter ", id.ToString(), " is not in the store"));
}

absl::StatusOr<SqliteStatement> SelectById(SqliteConnection* db, const AdapterId& id) {
  TENON_ASSIGN_OR_RETURN(
      SqliteStatement row,
      db->Prepare(absl::StrCat(kSelectVersion, "WHERE tenant = ? AND name = ? AND version = ?")));
  row.Bind(1, id.tenant);
  row.Bind(2, id.name);
  row.Bind(3, id.version);
  TENON_ASSIGN_OR_RETURN(const bool found, row.Step());
  if (!found) {
    return VersionNotFound(id);
  }
  return row;
}

absl::StatusOr<std::vector<StoredFile>> SelectFiles(SqliteConnection* db, int64_t version_id) {
  TENON_ASSIGN_OR_RETURN(
      SqliteStatement row,
      db->Prepare("SELECT name, sha256, num_bytes FROM files WHERE version_id = ? ORDER BY name"));
  row.Bind(1, version_id);
  return ReadAll<StoredFile>(row, [](const SqliteStatement& file) {
    return StoredFile{file.Text(0), file.Text(1), file.Int(2)};
  });
}

// The newest version of a name that holds these bytes.
absl::StatusOr<std::optional<AdapterInfo>> WithDigest(SqliteConnection* db, const AdapterId& id,
                                                      absl::string_view digest) {
  TENON_ASSIGN_OR_RETURN(
      SqliteStatement row,
      db->Prepare(absl::StrCat(kSelectVersion,
                               "WHERE tenant = ? AND name = ? AND digest = ? ORDER BY version DESC "
                               "LIMIT 1")));
  row.Bind(1, id.tenant);
  row.Bind(2, id.name);
  row.Bind(3, digest);
  TENON_ASSIGN_OR_RETURN(const bool found, row.Step());
  return found ? std::make_optional(ReadInfo(row)) : std::nullopt;
}

}  // namespace

absl::StatusOr<Catalogue> Catalogue::Open(const std::string& path) {
  TENON_ASSIGN_OR_RETURN(SqliteConnection db, OpenCatalogueDatabase(path));
  return Catalogue(std::move(db));
}

absl::StatusOr<CommittedVersion> Catalogue::Add(StoredVersion version, const CommitOrder& order,
                                                absl::Time now) {
  TENON_ASSIGN_OR_RETURN(SqliteTransaction transaction, SqliteTransaction::Begin(&db_));
  CommittedVersion committed;
  TENON_ASSIGN_OR_RETURN(std::optional<AdapterInfo> same,
                         WithDigest(&db_, version.info.id, version.info.digest));
  committed.created = !same.has_value();
  if (committed.created) {
    TENON_ASSIGN_OR_RETURN(version.info.id.version, NextVersion(version.info.id));
    TENON_RETURN_IF_ERROR(Insert(version));
  }
  committed.info = same.has_value() ? *std::move(same) : std::move(version.info);
  const AdapterId& id = committed.info.id;
  AliasMove move{
      id.tenant,  id.name, order.alias, id.version, order.expected_version, AliasAction::kUpload,
      order.actor};
  AliasChange& change = committed.name.change;
  change = AliasChange{0, now, order.actor, AliasAction::kUpload, "", 0, id.version, ""};
  if (!order.alias.empty()) {
    TENON_ASSIGN_OR_RETURN(change, PointAlias(move, now));
  }
  const bool changed = committed.created || change.from != change.to;
  if (changed && !(order.alias.empty() && !committed.created)) {
    TENON_RETURN_IF_ERROR(Record(id.tenant, id.name, change));
  }
  TENON_ASSIGN_OR_RETURN(committed.name.after, Name(id.tenant, id.name));
  TENON_RETURN_IF_ERROR(transaction.Commit());
  return committed;
}

absl::StatusOr<int64_t> Catalogue::NextVersion(const AdapterId& id) {
  TENON_ASSIGN_OR_RETURN(
      SqliteStatement next,
      db_.Prepare("INSERT INTO names (tenant, name, last_version) VALUES (?, ?, 1) ON CONFLICT "
                  "(tenant, name) DO UPDATE SET last_version = last_version + 1 RETURNING "
                  "last_version"));
  next.Bind(1, id.tenant);
  next.Bind(2, id.name);
  TENON_ASSIGN_OR_RETURN(const bool found, next.Step());
  const int64_t version = found ? next.Int(0) : 0;
  TENON_RETURN_IF_ERROR(next.Run());  // RETURNING writes when it is run to its end.
  return version;
}

absl::Status Catalogue::Insert(const StoredVersion& version) {
  const AdapterInfo& info = version.info;
  TENON_ASSIGN_OR_RETURN(SqliteStatement row,
                         db_.Prepare("INSERT INTO versions VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, "
                                     "?, ?, ?, ?, ?, ?)"));
  row.Bind(1, info.id.tenant);
  row.Bind(2, info.id.name);
  row.Bind(3, info.id.version);
  row.Bind(4, info.digest);
  row.Bind(5, info.method);
  row.Bind(6, info.num_parameters);
  row.Bind(7, info.max_rank);
  row.Bind(8, info.num_sites);
  row.Bind(9, info.stored_bytes);
  row.Bind(10, info.resident_bytes);
  row.Bind(11, absl::ToUnixNanos(info.created));
  row.Bind(12, WarningsToJson(info.warnings));
  row.Bind(13, ReportToJson(info));
  row.Bind(14, info.acceptance);
  TENON_RETURN_IF_ERROR(row.Run());
  const int64_t version_id = db_.last_insert_rowid();
  for (const StoredFile& file : version.files) {
    TENON_ASSIGN_OR_RETURN(SqliteStatement insert,
                           db_.Prepare("INSERT INTO files VALUES (?, ?, ?, ?)"));
    insert.Bind(1, version_id);
    insert.Bind(2, file.name);
    insert.Bind(3, file.sha256);
    insert.Bind(4, file.num_bytes);
    TENON_RETURN_IF_ERROR(insert.Run());
  }
  return absl::OkStatus();
}

absl::StatusOr<RemovedFiles> Catalogue::Remove(const AdapterId& id,
                                               const std::vector<AliasMove>& moves,
                                               absl::string_view actor, absl::Time now) {
  TENON_ASSIGN_OR_RETURN(SqliteTransaction transaction, SqliteTransaction::Begin(&db_));
  RemovedFiles removed;
  for (const AliasMove& move : moves) {
    TENON_ASSIGN_OR_RETURN(AliasChange change, PointAlias(move, now));
    if (change.from != change.to) {
      TENON_RETURN_IF_ERROR(Record(id.tenant, id.name, change));
    }
  }
  TENON_RETURN_IF_ERROR(CheckUnused(id));
  TENON_ASSIGN_OR_RETURN(removed.files, RemoveRow(id));
  AliasChange& change = removed.name.change;
  change = AliasChange{0, now, std::string(actor), AliasAction::kDelete, "", id.version, 0, ""};
  TENON_RETURN_IF_ERROR(Record(id.tenant, id.name, change));
  TENON_ASSIGN_OR_RETURN(removed.name.after, Name(id.tenant, id.name));
  TENON_RETURN_IF_ERROR(transaction.Commit());
  return removed;
}

absl::StatusOr<RemovedFiles> Catalogue::RemoveName(absl::string_view tenant, absl::string_view name,
                                                   absl::string_view actor, absl::Time now) {
  TENON_ASSIGN_OR_RETURN(SqliteTransaction transaction, SqliteTransaction::Begin(&db_));
  TENON_ASSIGN_OR_RETURN(const AdapterName before, Name(tenant, name));
  if (before.versions.empty()) {
    return NameNotFound(name);
  }
  RemovedFiles removed;
  for (const auto& [alias, version] : before.pointers.aliases) {
    const AliasMove move{before.tenant,        before.name,       alias, 0, std::nullopt,
                         AliasAction::kDelete, std::string(actor)};
    TENON_ASSIGN_OR_RETURN(AliasChange change, PointAlias(move, now));
    TENON_RETURN_IF_ERROR(Record(tenant, name, change));
  }
  for (const auto& [version, info] : before.versions) {
    TENON_ASSIGN_OR_RETURN(const std::vector<StoredFile> files, RemoveRow(info->id));
    removed.files.insert(removed.files.end(), files.begin(), files.end());
    removed.name.change =
        AliasChange{0, now, std::string(actor), AliasAction::kDelete, "", version, 0, ""};
    TENON_RETURN_IF_ERROR(Record(tenant, name, removed.name.change));
  }
  TENON_RETURN_IF_ERROR(WriteSplit(tenant, name, {}));
  TENON_ASSIGN_OR_RETURN(removed.name.after, Name(tenant, name));
  TENON_RETURN_IF_ERROR(transaction.Commit());
  return removed;
}

absl::StatusOr<std::vector<StoredFile>> Catalogue::RemoveRow(const AdapterId& id) {
  std::vector<StoredFile> files;
  {
    TENON_ASSIGN_OR_RETURN(const SqliteStatement row, SelectById(&db_, id));
    TENON_ASSIGN_OR_RETURN(files, SelectFiles(&db_, row.Int(0)));
  }
  TENON_ASSIGN_OR_RETURN(
      SqliteStatement remove,
      db_.Prepare("DELETE FROM versions WHERE tenant = ? AND name = ? AND version = ?"));
  remove.Bind(1, id.tenant);
  remove.Bind(2, id.name);
  remove.Bind(3, id.version);
  TENON_RETURN_IF_ERROR(remove.Run());
  return files;
}

absl::StatusOr<StoredVersion> Catalogue::Find(const AdapterId& id) {
  TENON_ASSIGN_OR_RETURN(const SqliteStatement row, SelectById(&db_, id));
  TENON_ASSIGN_OR_RETURN(std::vector<StoredFile> files, SelectFiles(&db_, row.Int(0)));
  return StoredVersion{ReadInfo(row), std::move(files)};
}

absl::StatusOr<std::vector<AdapterInfo>> Catalogue::Versions(absl::string_view tenant,
                                                             absl::string_view name) {
  const bool all = tenant.empty();
  TENON_ASSIGN_OR_RETURN(
      SqliteStatement row,
      db_.Prepare(absl::StrCat(kSelectVersion, all ? "" : "WHERE tenant = ? AND name = ? ",
                               "ORDER BY tenant, name, version")));
  if (!all) {
    row.Bind(1, tenant);
    row.Bind(2, name);
  }
  return ReadAll<AdapterInfo>(row, ReadInfo);
}

absl::StatusOr<absl::flat_hash_map<std::string, int64_t>> Catalogue::Blobs() {
  TENON_ASSIGN_OR_RETURN(SqliteStatement row,
                         db_.Prepare("SELECT DISTINCT sha256, num_bytes FROM files"));
  absl::flat_hash_map<std::string, int64_t> blobs;
  while (true) {
    TENON_ASSIGN_OR_RETURN(const bool more, row.Step());
    if (!more) {
      return blobs;
    }
    blobs.emplace(row.Text(0), row.Int(1));
  }
}

absl::StatusOr<std::vector<AdapterId>> Catalogue::VersionsWithBlob(absl::string_view sha256) {
  TENON_ASSIGN_OR_RETURN(SqliteStatement row,
                         db_.Prepare("SELECT DISTINCT tenant, versions.name, version FROM versions "
                                     "JOIN files ON version_id = id WHERE sha256 = ?"));
  row.Bind(1, sha256);
  return ReadAll<AdapterId>(row, [](const SqliteStatement& version) {
    return AdapterId{version.Text(0), version.Text(1), version.Int(2)};
  });
}

}  // namespace tenon
