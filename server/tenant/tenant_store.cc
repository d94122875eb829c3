#include "server/tenant/tenant_store.h"

#include <map>
#include <span>

#include "absl/strings/str_cat.h"
#include "adapters/base/status_macros.h"
#include "server/tenant/tenant_store_schema.h"

namespace tenon {
namespace {

// How many of kLimitFields have columns of their own in `tenants`.
constexpr size_t kLimitColumns = 7;

std::span<const LimitField> LaterLimits() {
  return std::span<const LimitField>(kLimitFields).subspan(kLimitColumns);
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

AuditEntry ReadAudit(const SqliteStatement& row) {
  return AuditEntry{row.Int(0),  FromNanos(row.Int(1)), row.Text(2), row.Text(3),
                    row.Text(4), row.Text(5),           row.Text(6), row.Text(7)};
}

}  // namespace

absl::StatusOr<TenantStore> TenantStore::Open(const std::string& path) {
  TENON_ASSIGN_OR_RETURN(SqliteConnection db, OpenTenantDatabase(path));
  return TenantStore(std::move(db));
}

absl::StatusOr<std::vector<TenantRecord>> TenantStore::Tenants() {
  TENON_ASSIGN_OR_RETURN(
      SqliteStatement rows,
      db_.Prepare("SELECT name, state, created_ns, requests_per_second, tokens_per_minute, "
                  "concurrent_requests, queued_requests, max_tokens, adapters, adapter_bytes "
                  "FROM tenants ORDER BY name"));
  TENON_ASSIGN_OR_RETURN(std::vector<TenantRecord> tenants,
                         ReadAll<TenantRecord>(rows, ReadTenant));
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

absl::StatusOr<std::vector<KeyRecord>> TenantStore::Keys() {
  TENON_ASSIGN_OR_RETURN(SqliteStatement rows,
                         db_.Prepare("SELECT id, tenant, role, digest, created_ns, expires_ns, "
                                     "revoked_ns, last_used_ns, note FROM keys ORDER BY id"));
  return ReadAll<KeyRecord>(rows, ReadKey);
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
  for (const char* sql :
       {"DELETE FROM tenants WHERE name = ?", "DELETE FROM keys WHERE tenant = ?",
        "DELETE FROM shares WHERE tenant = ?1 OR reader = ?1",
        "DELETE FROM later_limits WHERE tenant = ?", "DELETE FROM placements WHERE tenant = ?",
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
