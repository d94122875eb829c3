#include "server/tenant/tenant_store_schema.h"

#include <limits>

#include "absl/strings/str_cat.h"
#include "adapters/base/status_macros.h"

namespace tenon {
namespace {

constexpr int64_t kSchemaVersion = 1;

constexpr char kSchema[] = R"sql(
CREATE TABLE schema_version (version INTEGER NOT NULL);
INSERT INTO schema_version VALUES (1);
CREATE TABLE tenants (
  name TEXT PRIMARY KEY,
  state INTEGER NOT NULL,
  created_ns INTEGER NOT NULL,
  requests_per_second INTEGER NOT NULL,
  tokens_per_minute INTEGER NOT NULL,
  concurrent_requests INTEGER NOT NULL,
  queued_requests INTEGER NOT NULL,
  max_tokens INTEGER NOT NULL,
  adapters INTEGER NOT NULL,
  adapter_bytes INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE keys (
  id TEXT PRIMARY KEY,
  tenant TEXT NOT NULL,
  role TEXT NOT NULL,
  digest TEXT NOT NULL,
  created_ns INTEGER NOT NULL,
  expires_ns INTEGER NOT NULL,
  revoked_ns INTEGER NOT NULL,
  last_used_ns INTEGER NOT NULL,
  note TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE usage (
  tenant TEXT NOT NULL,
  adapter TEXT NOT NULL,
  requests INTEGER NOT NULL,
  prompt_tokens INTEGER NOT NULL,
  cached_prompt_tokens INTEGER NOT NULL,
  generated_tokens INTEGER NOT NULL,
  PRIMARY KEY (tenant, adapter)
) WITHOUT ROWID;
CREATE TABLE audit (
  sequence INTEGER PRIMARY KEY AUTOINCREMENT,
  time_ns INTEGER NOT NULL,
  actor TEXT NOT NULL,
  peer TEXT NOT NULL,
  action TEXT NOT NULL,
  tenant TEXT NOT NULL,
  object TEXT NOT NULL,
  outcome TEXT NOT NULL
);
CREATE INDEX audit_by_tenant ON audit (tenant, sequence);
CREATE TRIGGER audit_keeps_its_entries BEFORE DELETE ON audit
  BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER audit_keeps_its_words BEFORE UPDATE ON audit
  BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
)sql";

// Younger than the first release's tables, and nothing to servers that do not know them: a limit
// that a newer server has set is not in force on an older one, and is still there afterwards. In
// `shares` the reader "" is everybody.
constexpr char kLaterTables[] = R"sql(
CREATE TABLE IF NOT EXISTS shares (
  tenant TEXT NOT NULL,
  adapter TEXT NOT NULL,
  reader TEXT NOT NULL,
  PRIMARY KEY (tenant, adapter, reader)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS later_limits (
  tenant TEXT NOT NULL,
  name TEXT NOT NULL,
  value INTEGER NOT NULL,
  PRIMARY KEY (tenant, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS device_usage (
  tenant TEXT NOT NULL,
  adapter TEXT NOT NULL,
  device_seconds REAL NOT NULL,
  adapter_byte_seconds REAL NOT NULL,
  loads INTEGER NOT NULL,
  PRIMARY KEY (tenant, adapter)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS buckets (
  tenant TEXT PRIMARY KEY,
  requests REAL NOT NULL,
  requests_ns INTEGER NOT NULL,
  tokens REAL NOT NULL,
  tokens_ns INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS placements (
  tenant TEXT NOT NULL,
  adapter TEXT NOT NULL,
  version INTEGER NOT NULL,
  pinned INTEGER NOT NULL,
  merge TEXT NOT NULL,
  PRIMARY KEY (tenant, adapter, version)
) WITHOUT ROWID;
)sql";

absl::Status Migrate(SqliteConnection& db) {
  TENON_ASSIGN_OR_RETURN(SqliteTransaction transaction, SqliteTransaction::Begin(&db));
  {
    TENON_ASSIGN_OR_RETURN(SqliteStatement exists,
                           db.Prepare("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = "
                                      "'schema_version'"));
    TENON_ASSIGN_OR_RETURN(const bool found, exists.Step());
    if (!found) {
      TENON_RETURN_IF_ERROR(db.Execute(kSchema));
    }
  }
  TENON_RETURN_IF_ERROR(db.Execute(kLaterTables));
  {
    TENON_ASSIGN_OR_RETURN(SqliteStatement row, db.Prepare("SELECT version FROM schema_version"));
    TENON_ASSIGN_OR_RETURN(const bool found, row.Step());
    const int64_t version = found ? row.Int(0) : 0;
    if (version != kSchemaVersion) {
      return absl::FailedPreconditionError(absl::StrCat("tenant store has schema version ", version,
                                                        "; this server reads ", kSchemaVersion));
    }
  }
  return transaction.Commit();
}

}  // namespace

absl::StatusOr<SqliteConnection> OpenTenantDatabase(const std::string& path) {
  TENON_ASSIGN_OR_RETURN(SqliteConnection db, SqliteConnection::OpenOwned(path, "tenant store"));
  TENON_RETURN_IF_ERROR(Migrate(db));
  return db;
}

int64_t ToNanos(absl::Time time) {
  if (time == absl::InfiniteFuture()) {
    return std::numeric_limits<int64_t>::max();
  }
  return time == absl::InfinitePast() ? std::numeric_limits<int64_t>::min()
                                      : absl::ToUnixNanos(time);
}

absl::Time FromNanos(int64_t nanos) {
  if (nanos == std::numeric_limits<int64_t>::max()) {
    return absl::InfiniteFuture();
  }
  return nanos == std::numeric_limits<int64_t>::min() ? absl::InfinitePast()
                                                      : absl::FromUnixNanos(nanos);
}

}  // namespace tenon
