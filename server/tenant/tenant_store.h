// TenantStore: tenants, keys, usage and the audit log in an SQLite database.
#ifndef TENON_SERVER_TENANT_TENANT_STORE_H_
#define TENON_SERVER_TENANT_TENANT_STORE_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "adapters/base/sqlite.h"
#include "server/tenant/tenant_records.h"

namespace tenon {

/// Rows, and nothing about what they mean. A change and its audit entry are one transaction (WAL,
/// synchronous=FULL), on disk when the call returns. The database itself refuses to change or
/// delete an audit entry.
///
/// Not thread-safe; does I/O. Errors as SqliteConnection has them.
class TenantStore {
 public:
  /// Opens or creates. FAILED_PRECONDITION when a newer Tenon made it.
  static absl::StatusOr<TenantStore> Open(const std::string& path);

  absl::StatusOr<std::vector<TenantRecord>> Tenants();
  absl::StatusOr<std::vector<KeyRecord>> Keys();
  absl::StatusOr<std::vector<UsageRecord>> Usage();
  absl::StatusOr<std::vector<ShareRecord>> Shares();
  absl::StatusOr<std::vector<BucketRecord>> Buckets();
  absl::StatusOr<std::vector<PlacementRecord>> Placements();

  /// Inserts or replaces.
  absl::Status PutTenant(const TenantRecord& tenant, const AuditEntry& audit);
  /// With its keys, its placements, its shares and what was shared with it. Its usage and its audit
  /// entries stay.
  absl::Status DeleteTenant(absl::string_view name, const AuditEntry& audit);
  /// Inserts or replaces; all of them or none.
  absl::Status PutKeys(const std::vector<KeyRecord>& keys, const AuditEntry& audit);
  /// Replaces what held for that adapter; a share with nobody is none.
  absl::Status PutShare(const ShareRecord& share, const AuditEntry& audit);
  /// Replaces what held for that version; one that says nothing goes.
  absl::Status PutPlacement(const PlacementRecord& placement, const AuditEntry& audit);
  /// All of them or none.
  absl::Status DropPlacements(const std::vector<PlacementRecord>& placements);
  absl::Status AppendAudit(const AuditEntry& audit);

  /// Adds to totals, moves last uses and replaces buckets; one transaction.
  absl::Status Flush(const std::vector<UsageRecord>& more,
                     const std::vector<std::pair<std::string, absl::Time>>& last_uses,
                     const std::vector<BucketRecord>& buckets);

  /// Entries below `before`, the newest first, at most `limit`; of all tenants when `tenant` is
  /// empty.
  absl::StatusOr<std::vector<AuditEntry>> ListAudit(absl::string_view tenant, int64_t before,
                                                    int64_t limit);

 private:
  explicit TenantStore(SqliteConnection db) : db_(std::move(db)) {}

  absl::Status InsertAudit(const AuditEntry& audit);
  absl::Status InsertKey(const KeyRecord& key);
  absl::Status ErasePlacement(const PlacementRecord& placement);
  absl::Status AddLaterLimits(std::vector<TenantRecord>& tenants);
  absl::Status PutLaterLimits(const TenantRecord& tenant);
  absl::Status AddUsage(const UsageRecord& usage);
  absl::Status PutBucket(const BucketRecord& bucket);

  SqliteConnection db_;
};

}  // namespace tenon

#endif  // TENON_SERVER_TENANT_TENANT_STORE_H_
