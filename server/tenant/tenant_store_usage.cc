// TenantStore: sums of usage and the levels of rates.
#include "adapters/base/status_macros.h"
#include "server/tenant/tenant_store.h"
#include "server/tenant/tenant_store_schema.h"

namespace tenon {
namespace {

UsageRecord ReadUsage(const SqliteStatement& row) {
  return UsageRecord{
      row.Text(0),
      row.Text(1),
      {row.Int(2), row.Int(3), row.Int(4), row.Int(5), row.Real(6), row.Real(7), row.Int(8)}};
}

BucketRecord ReadBucket(const SqliteStatement& row) {
  return BucketRecord{row.Text(0), row.Real(1), row.Real(3), FromNanos(row.Int(2)),
                      FromNanos(row.Int(4))};
}

}  // namespace

absl::StatusOr<std::vector<UsageRecord>> TenantStore::Usage() {
  TENON_ASSIGN_OR_RETURN(
      SqliteStatement rows,
      db_.Prepare("SELECT tenant, adapter, requests, prompt_tokens, cached_prompt_tokens, "
                  "generated_tokens, IFNULL(device_seconds, 0), IFNULL(adapter_byte_seconds, 0), "
                  "IFNULL(loads, 0) FROM usage LEFT JOIN device_usage USING (tenant, adapter) "
                  "ORDER BY tenant, adapter"));
  return ReadAll<UsageRecord>(rows, ReadUsage);
}

absl::StatusOr<std::vector<BucketRecord>> TenantStore::Buckets() {
  TENON_ASSIGN_OR_RETURN(
      SqliteStatement rows,
      db_.Prepare("SELECT tenant, requests, requests_ns, tokens, tokens_ns FROM buckets"));
  return ReadAll<BucketRecord>(rows, ReadBucket);
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

}  // namespace tenon
