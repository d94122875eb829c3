#include "adapters/store/catalogue.h"

#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/time/time.h"
#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"
#include "nlohmann/json.hpp"

namespace tenon {
namespace {

constexpr int64_t kSchemaVersion = 1;

// The connection keeps the file locked (locking_mode): one process owns a store, and the WAL's
// index then lives in memory rather than in a mapped file that a full disk can deny.
constexpr char kPragmas[] =
    "PRAGMA locking_mode = EXCLUSIVE;"
    "PRAGMA journal_mode = WAL;"
    "PRAGMA synchronous = FULL;"
    "PRAGMA foreign_keys = ON;";

// `names` outlives the versions of a name, so that a version number is never used twice.
constexpr char kSchema[] = R"sql(
CREATE TABLE schema_version (version INTEGER NOT NULL);
INSERT INTO schema_version VALUES (1);
CREATE TABLE names (
  tenant TEXT NOT NULL,
  name TEXT NOT NULL,
  last_version INTEGER NOT NULL,
  PRIMARY KEY (tenant, name)
) WITHOUT ROWID;
CREATE TABLE versions (
  id INTEGER PRIMARY KEY,
  tenant TEXT NOT NULL,
  name TEXT NOT NULL,
  version INTEGER NOT NULL,
  digest TEXT NOT NULL,
  method TEXT NOT NULL,
  num_parameters INTEGER NOT NULL,
  max_rank INTEGER NOT NULL,
  num_sites INTEGER NOT NULL,
  stored_bytes INTEGER NOT NULL,
  resident_bytes INTEGER NOT NULL,
  created_ns INTEGER NOT NULL,
  warnings TEXT NOT NULL,
  UNIQUE (tenant, name, version),
  FOREIGN KEY (tenant, name) REFERENCES names (tenant, name)
);
CREATE TABLE files (
  version_id INTEGER NOT NULL REFERENCES versions (id) ON DELETE CASCADE,
  name TEXT NOT NULL,
  sha256 TEXT NOT NULL,
  num_bytes INTEGER NOT NULL,
  PRIMARY KEY (version_id, name)
) WITHOUT ROWID;
CREATE INDEX files_by_sha256 ON files (sha256);
)sql";

constexpr absl::string_view kSelectVersion =
    "SELECT id, tenant, name, version, digest, method, num_parameters, max_rank, num_sites, "
    "stored_bytes, resident_bytes, created_ns, warnings FROM versions ";

std::string WarningsToJson(const std::vector<std::string>& warnings) {
  return nlohmann::json(warnings).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

// What is not a list of strings reads as none: warnings are only shown.
std::vector<std::string> WarningsFromJson(const std::string& text) {
  std::vector<std::string> warnings;
  const nlohmann::json json = nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false);
  for (const nlohmann::json& warning : json) {
    if (const auto* value = warning.get_ptr<const std::string*>()) {
      warnings.push_back(*value);
    }
  }
  return warnings;
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
  return info;
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
  std::vector<StoredFile> files;
  while (true) {
    TENON_ASSIGN_OR_RETURN(const bool more, row.Step());
    if (!more) {
      return files;
    }
    files.push_back(StoredFile{row.Text(0), row.Text(1), row.Int(2)});
  }
}

absl::StatusOr<std::optional<AdapterInfo>> Newest(SqliteConnection* db, const AdapterId& id) {
  TENON_ASSIGN_OR_RETURN(
      SqliteStatement row,
      db->Prepare(absl::StrCat(kSelectVersion,
                               "WHERE tenant = ? AND name = ? ORDER BY version DESC LIMIT 1")));
  row.Bind(1, id.tenant);
  row.Bind(2, id.name);
  TENON_ASSIGN_OR_RETURN(const bool found, row.Step());
  return found ? std::make_optional(ReadInfo(row)) : std::nullopt;
}

absl::Status QuickCheck(SqliteConnection* db) {
  TENON_ASSIGN_OR_RETURN(SqliteStatement check, db->Prepare("PRAGMA quick_check(1)"));
  TENON_ASSIGN_OR_RETURN(const bool found, check.Step());
  std::string answer = found ? check.Text(0) : "no answer";
  absl::StrReplaceAll({{"\n", " "}}, &answer);
  // The check reports a page that it could not read like any other finding; the disk may recover.
  if (absl::StrContains(answer, "unable to get the page")) {
    return absl::UnavailableError(absl::StrCat("adapter catalogue cannot be read: ", answer));
  }
  if (answer != "ok") {
    return absl::DataLossError(absl::StrCat("adapter catalogue is damaged: ", answer));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Catalogue> Catalogue::Open(const std::string& path) {
  TENON_ASSIGN_OR_RETURN(SqliteConnection db, SqliteConnection::Open(path, "adapter catalogue"));
  TENON_RETURN_IF_ERROR(db.Execute(kPragmas));
  Catalogue catalogue(std::move(db));
  TENON_RETURN_IF_ERROR(QuickCheck(&catalogue.db_));
  TENON_RETURN_IF_ERROR(catalogue.Migrate());
  return catalogue;
}

absl::Status Catalogue::Migrate() {
  TENON_ASSIGN_OR_RETURN(SqliteTransaction transaction, SqliteTransaction::Begin(&db_));
  {
    TENON_ASSIGN_OR_RETURN(
        SqliteStatement exists,
        db_.Prepare("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = "
                    "'schema_version'"));
    TENON_ASSIGN_OR_RETURN(const bool found, exists.Step());
    if (!found) {
      TENON_RETURN_IF_ERROR(db_.Execute(kSchema));
    }
  }
  {
    TENON_ASSIGN_OR_RETURN(SqliteStatement row, db_.Prepare("SELECT version FROM schema_version"));
    TENON_ASSIGN_OR_RETURN(const bool found, row.Step());
    const int64_t version = found ? row.Int(0) : 0;
    if (version != kSchemaVersion) {
      return absl::FailedPreconditionError(absl::StrCat("adapter catalogue has schema version ",
                                                        version, "; this server reads ",
                                                        kSchemaVersion));
    }
  }
  return transaction.Commit();
}

absl::StatusOr<bool> Catalogue::Add(StoredVersion* version) {
  TENON_ASSIGN_OR_RETURN(SqliteTransaction transaction, SqliteTransaction::Begin(&db_));
  TENON_ASSIGN_OR_RETURN(std::optional<AdapterInfo> newest, Newest(&db_, version->info.id));
  if (newest.has_value() && newest->digest == version->info.digest) {
    version->info = *std::move(newest);
    return false;
  }
  TENON_ASSIGN_OR_RETURN(version->info.id.version, NextVersion(version->info.id));
  TENON_RETURN_IF_ERROR(Insert(*version));
  TENON_RETURN_IF_ERROR(transaction.Commit());
  return true;
}

absl::StatusOr<int64_t> Catalogue::NextVersion(const AdapterId& id) {
  TENON_ASSIGN_OR_RETURN(
      SqliteStatement next,
      db_.Prepare("INSERT INTO names VALUES (?, ?, 1) ON CONFLICT (tenant, name) DO UPDATE SET "
                  "last_version = last_version + 1 RETURNING last_version"));
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
                                     "?, ?, ?, ?)"));
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

absl::StatusOr<std::vector<StoredFile>> Catalogue::Remove(const AdapterId& id) {
  TENON_ASSIGN_OR_RETURN(SqliteTransaction transaction, SqliteTransaction::Begin(&db_));
  std::vector<StoredFile> files;
  {
    TENON_ASSIGN_OR_RETURN(const SqliteStatement row, SelectById(&db_, id));
    TENON_ASSIGN_OR_RETURN(files, SelectFiles(&db_, row.Int(0)));
  }
  {
    TENON_ASSIGN_OR_RETURN(
        SqliteStatement remove,
        db_.Prepare("DELETE FROM versions WHERE tenant = ? AND name = ? AND version = ?"));
    remove.Bind(1, id.tenant);
    remove.Bind(2, id.name);
    remove.Bind(3, id.version);
    TENON_RETURN_IF_ERROR(remove.Run());
  }
  TENON_RETURN_IF_ERROR(transaction.Commit());
  return files;
}

absl::StatusOr<StoredVersion> Catalogue::Find(const AdapterId& id) {
  TENON_ASSIGN_OR_RETURN(const SqliteStatement row, SelectById(&db_, id));
  TENON_ASSIGN_OR_RETURN(std::vector<StoredFile> files, SelectFiles(&db_, row.Int(0)));
  return StoredVersion{ReadInfo(row), std::move(files)};
}

absl::StatusOr<std::vector<AdapterInfo>> Catalogue::List() {
  TENON_ASSIGN_OR_RETURN(
      SqliteStatement row,
      db_.Prepare(absl::StrCat(kSelectVersion, "ORDER BY tenant, name, version")));
  std::vector<AdapterInfo> infos;
  while (true) {
    TENON_ASSIGN_OR_RETURN(const bool more, row.Step());
    if (!more) {
      return infos;
    }
    infos.push_back(ReadInfo(row));
  }
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
  std::vector<AdapterId> ids;
  while (true) {
    TENON_ASSIGN_OR_RETURN(const bool more, row.Step());
    if (!more) {
      return ids;
    }
    ids.push_back(AdapterId{row.Text(0), row.Text(1), row.Int(2)});
  }
}

}  // namespace tenon
