#include "adapters/store/catalogue_schema.h"

#include <cstdint>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "adapters/base/status_macros.h"

namespace tenon {
namespace {

constexpr int64_t kSchemaVersion = 3;

// Schema 1. `names` outlives the versions of a name, so that a version number is never used twice.
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

// From schema 1 to 2.
constexpr char kUpgradeTo2[] = R"sql(
ALTER TABLE versions ADD COLUMN report TEXT NOT NULL DEFAULT '{}';
UPDATE schema_version SET version = 2;
)sql";

// From schema 2 to 3. Until then every upload moved the bare name, which is what the history says.
constexpr char kUpgradeTo3[] = R"sql(
ALTER TABLE versions ADD COLUMN acceptance TEXT NOT NULL DEFAULT '';
ALTER TABLE names ADD COLUMN split TEXT NOT NULL DEFAULT '[]';
ALTER TABLE names ADD COLUMN generation INTEGER NOT NULL DEFAULT 0;
CREATE INDEX names_by_generation ON names (tenant, generation);
CREATE TABLE aliases (
  tenant TEXT NOT NULL,
  name TEXT NOT NULL,
  alias TEXT NOT NULL,
  version INTEGER NOT NULL,
  PRIMARY KEY (tenant, name, alias),
  FOREIGN KEY (tenant, name, version) REFERENCES versions (tenant, name, version)
) WITHOUT ROWID;
CREATE INDEX aliases_by_version ON aliases (tenant, name, version);
CREATE TABLE history (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  tenant TEXT NOT NULL,
  name TEXT NOT NULL,
  action TEXT NOT NULL,
  alias TEXT NOT NULL,
  from_version INTEGER NOT NULL,
  to_version INTEGER NOT NULL,
  actor TEXT NOT NULL,
  details TEXT NOT NULL,
  time_ns INTEGER NOT NULL
);
CREATE INDEX history_by_name ON history (tenant, name, id);
INSERT INTO aliases SELECT tenant, name, 'latest', max(version) FROM versions GROUP BY tenant, name;
INSERT INTO history (tenant, name, action, alias, from_version, to_version, actor, details, time_ns)
  SELECT tenant, name, 'upload', 'latest',
         lag(version, 1, 0) OVER (PARTITION BY tenant, name ORDER BY version), version,
         'server', 'made before aliases were', created_ns
  FROM versions ORDER BY id;
UPDATE schema_version SET version = 3;
)sql";

// The step from each schema to the next, an empty database being 0.
constexpr const char* kSteps[kSchemaVersion] = {kSchema, kUpgradeTo2, kUpgradeTo3};

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

absl::StatusOr<int64_t> ReadSchemaVersion(SqliteConnection* db) {
  TENON_ASSIGN_OR_RETURN(SqliteStatement exists,
                         db->Prepare("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = "
                                     "'schema_version'"));
  TENON_ASSIGN_OR_RETURN(const bool found, exists.Step());
  if (!found) {
    return 0;
  }
  TENON_ASSIGN_OR_RETURN(SqliteStatement row, db->Prepare("SELECT version FROM schema_version"));
  TENON_ASSIGN_OR_RETURN(const bool has_row, row.Step());
  return has_row ? row.Int(0) : -1;
}

// All steps in one transaction: a crash leaves the old schema or the new one.
absl::Status Migrate(SqliteConnection* db) {
  TENON_ASSIGN_OR_RETURN(SqliteTransaction transaction, SqliteTransaction::Begin(db));
  TENON_ASSIGN_OR_RETURN(int64_t version, ReadSchemaVersion(db));
  while (version >= 0 && version < kSchemaVersion) {
    TENON_RETURN_IF_ERROR(db->Execute(kSteps[version]));
    ++version;
  }
  if (version != kSchemaVersion) {
    return absl::FailedPreconditionError(absl::StrCat(
        "adapter catalogue has schema version ", version, "; this server reads ", kSchemaVersion));
  }
  return transaction.Commit();
}

}  // namespace

absl::StatusOr<SqliteConnection> OpenCatalogueDatabase(const std::string& path) {
  TENON_ASSIGN_OR_RETURN(SqliteConnection db,
                         SqliteConnection::OpenOwned(path, "adapter catalogue"));
  TENON_RETURN_IF_ERROR(QuickCheck(&db));
  TENON_RETURN_IF_ERROR(Migrate(&db));
  return db;
}

}  // namespace tenon
