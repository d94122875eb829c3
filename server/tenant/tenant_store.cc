#include "server/tenant/tenant_store.h"

#include <limits>
#include <map>
#include <span>

#include "absl/strings/str_cat.h"
#include "adapters/base/status_macros.h"

namespace tenon {
namespace {

constexpr int64_t kSchemaVersion = 1;

constexpr char kPragmas[] =
    "PRAGMA locking_mode = EXCLUSIVE;"
    "PRAGMA journal_mode = WAL;"
    "PRAGMA synchronous = FULL;"
    "PRAGMA foreign_keys = ON;";

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

// How many of kLimitFields have columns of their own in `tenants`.
constexpr size_t kLimitColumns = 7;

std::span<const LimitField> LaterLimits() {
  return std::span<const LimitField>(kLimitFields).subspan(kLimitColumns);
}

// Infinite times are the ends of the range.
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

TenantRecord ReadTenant(const SqliteStatement& row) {
  TenantRecord tenant;
  tenant.name = row.Text(0);
  tenant.state = row.Int(1) == 0 ? TenantState::kActive : TenantState::kSuspended;
  tenant.created = FromNanos(row.Int(2));
  tenant.limits.requests_per_second = row.Int(3);
  tenant.limits.tokens_per_minute = row.Int(4);
  tenant.limits.concurrent_requests = row.Int(5);
  tenant.limits.queued_requests = row.Int(6);
  tenant.limits.max_tokens = row.Int(7);
  tenant.limits.adapters = row.Int(8);
  tenant.limits.adapter_bytes = row.Int(9);
  return tenant;
}

absl::StatusOr<KeyRecord> ReadKey(const SqliteStatement& row) {
  KeyRecord key;
  key.id = row.Text(0);
  key.tenant = row.Text(1);
  absl::StatusOr<Role> role = ParseRole("role", row.Text(2));
  if (!role.ok()) {
    return absl::DataLossError(
        absl::StrCat("tenant store: key ", key.id, ": ", role.status().message()));
  }
  key.role = *role;
  key.digest = row.Text(3);
  key.created = FromNanos(row.Int(4));
  key.expires = FromNanos(row.Int(5));
  key.revoked = FromNanos(row.Int(6));
  key.last_used = FromNanos(row.Int(7));
  key.note = row.Text(8);
  return key;
}

absl::StatusOr<UsageRecord> ReadUsage(const SqliteStatement& row) {
  return UsageRecord{row.Text(0),
                     row.Text(1),
                     {row.Int(2), row.Int(3), row.Int(4), row.Int(5), row.Real(6), row.Real(7),
                      row.Int(8)}};
}

absl::StatusOr<BucketRecord> ReadBucket(const SqliteStatement& row) {
  return BucketRecord{row.Text(0), row.Real(1), row.Real(3), FromNanos(row.Int(2)),
                      FromNanos(row.Int(4))};
}

absl::StatusOr<AuditEntry> ReadAudit(const SqliteStatement& row) {
  return AuditEntry{row.Int(0),  FromNanos(row.Int(1)), row.Text(2), row.Text(3),
                    row.Text(4), row.Text(5),           row.Text(6), row.Text(7)};
}

// All rows of a statement, each read by `read`.
template <typename Record, typename Read>
absl::StatusOr<std::vector<Record>> ReadAll(SqliteStatement& rows, Read read) {
  std::vector<Record> records;
  while (true) {
    TENON_ASSIGN_OR_RETURN(const bool more, rows.Step());
    if (!more) {
      return records;
    }
    TENON_ASSIGN_OR_RETURN(Record record, read(rows));
    records.push_back(std::move(record));
  }
}

}  // namespace

absl::StatusOr<TenantStore> TenantStore::Open(const std::string& path) {
  TENON_ASSIGN_OR_RETURN(SqliteConnection db, SqliteConnection::Open(path, "tenant store"));
  TENON_RETURN_IF_ERROR(db.Execute(kPragmas));
  TenantStore store(std::move(db));
  TENON_RETURN_IF_ERROR(store.Migrate());
  return store;
}

absl::Status TenantStore::Migrate() {
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
  TENON_RETURN_IF_ERROR(db_.Execute(kLaterTables));
  {
    TENON_ASSIGN_OR_RETURN(SqliteStatement row, db_.Prepare("SELECT version FROM schema_version"));
    TENON_ASSIGN_OR_RETURN(const bool found, row.Step());
    const int64_t version = found ? row.Int(0) : 0;
    if (version != kSchemaVersion) {
      return absl::FailedPreconditionError(absl::StrCat("tenant store has schema version ", version,
                                                        "; this server reads ", kSchemaVersion));
    }
  }
  return transaction.Commit();
}

absl::StatusOr<std::vector<TenantRecord>> TenantStore::Tenants() {
  TENON_ASSIGN_OR_RETURN(
      SqliteStatement rows,
      db_.Prepare("SELECT name, state, created_ns, requests_per_second, tokens_per_minute, "
                  "concurrent_requests, queued_requests, max_tokens, adapters, adapter_bytes "
                  "FROM tenants ORDER BY name"));
  TENON_ASSIGN_OR_RETURN(
      std::vector<TenantRecord> tenants,
      ReadAll<TenantRecord>(rows, [](const SqliteStatement& row) -> absl::StatusOr<TenantRecord> {
        return ReadTenant(row);
      }));
  TENON_RETURN_IF_ERROR(AddLaterLimits(tenants));
  return tenants;
}

absl::Status TenantStore::AddLaterLimits(std::vector<TenantRecord>& tenants) {
  std::map<std::string, TenantLimits*> limits_of;
  for (TenantRecord& tenant : tenants) {
    limits_of.emplace(tenant.name, &tenant.limits);
  }
  TENON_ASSIGN_OR_RETURN(SqliteStatement rows,
                         db_.Prepare("SELECT tenant, name, value FROM later_limits"));
  while (true) {
    TENON_ASSIGN_OR_RETURN(const bool more, rows.Step());
    if (!more) {
      return absl::OkStatus();
    }
    const auto tenant = limits_of.find(rows.Text(0));
    for (const LimitField& limit : LaterLimits()) {
      if (tenant != limits_of.end() && limit.name == rows.Text(1)) {
        tenant->second->*limit.field = rows.Int(2);
      }
    }
  }
}

absl::Status TenantStore::PutLaterLimits(const TenantRecord& tenant) {
  for (const LimitField& limit : LaterLimits()) {
    TENON_ASSIGN_OR_RETURN(SqliteStatement row,
                           db_.Prepare("INSERT OR REPLACE INTO later_limits VALUES (?, ?, ?)"));
    row.Bind(1, tenant.name);
    row.Bind(2, limit.name);
    row.Bind(3, tenant.limits.*limit.field);
    TENON_RETURN_IF_ERROR(row.Run());
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<BucketRecord>> TenantStore::Buckets() {
  TENON_ASSIGN_OR_RETURN(
      SqliteStatement rows,
      db_.Prepare("SELECT tenant, requests, requests_ns, tokens, tokens_ns FROM buckets"));
  return ReadAll<BucketRecord>(rows, ReadBucket);
}

absl::StatusOr<std::vector<KeyRecord>> TenantStore::Keys() {
  TENON_ASSIGN_OR_RETURN(SqliteStatement rows,
                         db_.Prepare("SELECT id, tenant, role, digest, created_ns, expires_ns, "
                                     "revoked_ns, last_used_ns, note FROM keys ORDER BY id"));
  return ReadAll<KeyRecord>(rows, ReadKey);
}

absl::StatusOr<std::vector<UsageRecord>> TenantStore::Usage() {
  TENON_ASSIGN_OR_RETURN(
      SqliteStatement rows,
      db_.Prepare("SELECT tenant, adapter, requests, prompt_tokens, cached_prompt_tokens, "
                  "generated_tokens, IFNULL(device_seconds, 0), IFNULL(adapter_byte_seconds, 0), "
                  "IFNULL(loads, 0) FROM usage LEFT JOIN device_usage USING (tenant, adapter) "
                  "ORDER BY tenant, adapter"));
  return ReadAll<UsageRecord>(rows, ReadUsage);
}

absl::StatusOr<std::vector<ShareRecord>> TenantStore::Shares() {
  TENON_ASSIGN_OR_RETURN(
      SqliteStatement rows,
      db_.Prepare("SELECT tenant, adapter, reader FROM shares ORDER BY tenant, adapter, reader"));
  std::vector<ShareRecord> shares;
  while (true) {
    TENON_ASSIGN_OR_RETURN(const bool more, rows.Step());
    if (!more) {
      return shares;
    }
    if (shares.empty() || shares.back().tenant != rows.Text(0) ||
        shares.back().adapter != rows.Text(1)) {
      shares.push_back({rows.Text(0), rows.Text(1), false, {}});
    }
    if (rows.Text(2).empty()) {
      shares.back().everybody = true;
    } else {
      shares.back().readers.push_back(rows.Text(2));
    }
  }
}

absl::Status TenantStore::PutTenant(const TenantRecord& tenant, const AuditEntry& audit) {
  TENON_ASSIGN_OR_RETURN(SqliteTransaction transaction, SqliteTransaction::Begin(&db_));
  {
    TENON_ASSIGN_OR_RETURN(
        SqliteStatement row,
        db_.Prepare("INSERT OR REPLACE INTO tenants VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"));
    const TenantLimits& limits = tenant.limits;
    row.Bind(1, tenant.name);
    row.Bind(2, int64_t{tenant.state == TenantState::kActive ? 0 : 1});
    row.Bind(3, ToNanos(tenant.created));
    row.Bind(4, limits.requests_per_second);
    row.Bind(5, limits.tokens_per_minute);
    row.Bind(6, limits.concurrent_requests);
    row.Bind(7, limits.queued_requests);
    row.Bind(8, limits.max_tokens);
    row.Bind(9, limits.adapters);
    row.Bind(10, limits.adapter_bytes);
    TENON_RETURN_IF_ERROR(row.Run());
  }
  TENON_RETURN_IF_ERROR(PutLaterLimits(tenant));
  TENON_RETURN_IF_ERROR(InsertAudit(audit));
  return transaction.Commit();
}

absl::Status TenantStore::DeleteTenant(absl::string_view name, const AuditEntry& audit) {
  TENON_ASSIGN_OR_RETURN(SqliteTransaction transaction, SqliteTransaction::Begin(&db_));
  for (const char* sql : {"DELETE FROM tenants WHERE name = ?", "DELETE FROM keys WHERE tenant = ?",
                          "DELETE FROM shares WHERE tenant = ?1 OR reader = ?1",
                          "DELETE FROM later_limits WHERE tenant = ?",
                          "DELETE FROM placements WHERE tenant = ?",
                          "DELETE FROM buckets WHERE tenant = ?"}) {
    TENON_ASSIGN_OR_RETURN(SqliteStatement row, db_.Prepare(sql));
    row.Bind(1, name);
    TENON_RETURN_IF_ERROR(row.Run());
  }
  TENON_RETURN_IF_ERROR(InsertAudit(audit));
  return transaction.Commit();
}

absl::Status TenantStore::PutKeys(const std::vector<KeyRecord>& keys, const AuditEntry& audit) {
  TENON_ASSIGN_OR_RETURN(SqliteTransaction transaction, SqliteTransaction::Begin(&db_));
  for (const KeyRecord& key : keys) {
    TENON_RETURN_IF_ERROR(InsertKey(key));
  }
  TENON_RETURN_IF_ERROR(InsertAudit(audit));
  return transaction.Commit();
}

absl::Status TenantStore::InsertKey(const KeyRecord& key) {
  TENON_ASSIGN_OR_RETURN(
      SqliteStatement row,
      db_.Prepare("INSERT OR REPLACE INTO keys VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"));
  row.Bind(1, key.id);
  row.Bind(2, key.tenant);
  row.Bind(3, RoleName(key.role));
  row.Bind(4, key.digest);
  row.Bind(5, ToNanos(key.created));
  row.Bind(6, ToNanos(key.expires));
  row.Bind(7, ToNanos(key.revoked));
  row.Bind(8, ToNanos(key.last_used));
  row.Bind(9, key.note);
  return row.Run();
}

absl::Status TenantStore::PutShare(const ShareRecord& share, const AuditEntry& audit) {
  TENON_ASSIGN_OR_RETURN(SqliteTransaction transaction, SqliteTransaction::Begin(&db_));
  {
    TENON_ASSIGN_OR_RETURN(SqliteStatement row,
                           db_.Prepare("DELETE FROM shares WHERE tenant = ? AND adapter = ?"));
    row.Bind(1, share.tenant);
    row.Bind(2, share.adapter);
    TENON_RETURN_IF_ERROR(row.Run());
  }
  std::vector<std::string> readers = share.readers;
  if (share.everybody) {
    readers.emplace_back();
  }
  for (const std::string& reader : readers) {
    TENON_ASSIGN_OR_RETURN(SqliteStatement row, db_.Prepare("INSERT INTO shares VALUES (?, ?, ?)"));
    row.Bind(1, share.tenant);
    row.Bind(2, share.adapter);
    row.Bind(3, reader);
    TENON_RETURN_IF_ERROR(row.Run());
  }
  TENON_RETURN_IF_ERROR(InsertAudit(audit));
  return transaction.Commit();
}

absl::Status TenantStore::AppendAudit(const AuditEntry& audit) {
  TENON_ASSIGN_OR_RETURN(SqliteTransaction transaction, SqliteTransaction::Begin(&db_));
  TENON_RETURN_IF_ERROR(InsertAudit(audit));
  return transaction.Commit();
}

absl::Status TenantStore::InsertAudit(const AuditEntry& audit) {
  TENON_ASSIGN_OR_RETURN(SqliteStatement row,
                         db_.Prepare("INSERT INTO audit VALUES (NULL, ?, ?, ?, ?, ?, ?, ?)"));
  row.Bind(1, ToNanos(audit.time));
  row.Bind(2, audit.actor);
  row.Bind(3, audit.peer);
  row.Bind(4, audit.action);
  row.Bind(5, audit.tenant);
  row.Bind(6, audit.object);
  row.Bind(7, audit.outcome);
  return row.Run();
}

absl::Status TenantStore::AddUsage(const UsageRecord& usage) {
  {
    TENON_ASSIGN_OR_RETURN(
        SqliteStatement row,
        db_.Prepare("INSERT INTO usage VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (tenant, adapter) DO "
                    "UPDATE SET requests = requests + excluded.requests, prompt_tokens = "
                    "prompt_tokens + excluded.prompt_tokens, cached_prompt_tokens = "
                    "cached_prompt_tokens + excluded.cached_prompt_tokens, generated_tokens = "
                    "generated_tokens + excluded.generated_tokens"));
    row.Bind(1, usage.tenant);
    row.Bind(2, usage.adapter);
    row.Bind(3, usage.totals.requests);
    row.Bind(4, usage.totals.prompt_tokens);
    row.Bind(5, usage.totals.cached_prompt_tokens);
    row.Bind(6, usage.totals.generated_tokens);
    TENON_RETURN_IF_ERROR(row.Run());
  }
  TENON_ASSIGN_OR_RETURN(
      SqliteStatement row,
      db_.Prepare("INSERT INTO device_usage VALUES (?, ?, ?, ?, ?) ON CONFLICT (tenant, adapter) "
                  "DO UPDATE SET device_seconds = device_seconds + excluded.device_seconds, "
                  "adapter_byte_seconds = adapter_byte_seconds + excluded.adapter_byte_seconds, "
                  "loads = loads + excluded.loads"));
  row.Bind(1, usage.tenant);
  row.Bind(2, usage.adapter);
  row.BindReal(3, usage.totals.device_seconds);
  row.BindReal(4, usage.totals.adapter_byte_seconds);
  row.Bind(5, usage.totals.loads);
  return row.Run();
}

absl::Status TenantStore::PutBucket(const BucketRecord& bucket) {
  TENON_ASSIGN_OR_RETURN(SqliteStatement row,
                         db_.Prepare("INSERT OR REPLACE INTO buckets VALUES (?, ?, ?, ?, ?)"));
  row.Bind(1, bucket.tenant);
  row.BindReal(2, bucket.requests);
  row.Bind(3, ToNanos(bucket.requests_time));
  row.BindReal(4, bucket.tokens);
  row.Bind(5, ToNanos(bucket.tokens_time));
  return row.Run();
}

absl::Status TenantStore::Flush(const std::vector<UsageRecord>& more,
                                const std::vector<std::pair<std::string, absl::Time>>& last_uses,
                                const std::vector<BucketRecord>& buckets) {
  TENON_ASSIGN_OR_RETURN(SqliteTransaction transaction, SqliteTransaction::Begin(&db_));
  for (const UsageRecord& usage : more) {
    TENON_RETURN_IF_ERROR(AddUsage(usage));
  }
  for (const BucketRecord& bucket : buckets) {
    TENON_RETURN_IF_ERROR(PutBucket(bucket));
  }
  for (const auto& [id, time] : last_uses) {
    TENON_ASSIGN_OR_RETURN(SqliteStatement row,
                           db_.Prepare("UPDATE keys SET last_used_ns = ? WHERE id = ?"));
    row.Bind(1, ToNanos(time));
    row.Bind(2, id);
    TENON_RETURN_IF_ERROR(row.Run());
  }
  return transaction.Commit();
}

absl::StatusOr<std::vector<AuditEntry>> TenantStore::ListAudit(absl::string_view tenant,
                                                               int64_t before, int64_t limit) {
  TENON_ASSIGN_OR_RETURN(
      SqliteStatement rows,
      db_.Prepare("SELECT sequence, time_ns, actor, peer, action, tenant, object, outcome FROM "
                  "audit WHERE sequence < ?1 AND (?2 = '' OR tenant = ?2) ORDER BY sequence DESC "
                  "LIMIT ?3"));
  rows.Bind(1, before);
  rows.Bind(2, tenant);
  rows.Bind(3, limit);
  return ReadAll<AuditEntry>(rows, ReadAudit);
}

}  // namespace tenon
