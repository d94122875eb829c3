// TenantStore: what was said about the places of adapters.
#include "adapters/base/status_macros.h"
#include "server/tenant/tenant_store.h"

namespace tenon {
namespace {

constexpr absl::string_view kWishNames[] = {"auto", "always", "never"};  // by MergeWish

// What a newer server may have written is left to the policy.
MergeWish WishOf(absl::string_view name) {
  for (const MergeWish wish : {MergeWish::kAlways, MergeWish::kNever}) {
    if (name == kWishNames[static_cast<int>(wish)]) {
      return wish;
    }
  }
  return MergeWish::kAuto;
}

}  // namespace

absl::StatusOr<std::vector<PlacementRecord>> TenantStore::Placements() {
  TENON_ASSIGN_OR_RETURN(SqliteStatement rows,
                         db_.Prepare("SELECT tenant, adapter, version, pinned, merge FROM "
                                     "placements ORDER BY tenant, adapter, version"));
  return ReadAll<PlacementRecord>(rows, [](const SqliteStatement& row) {
    return PlacementRecord{row.Text(0), row.Text(1), row.Int(2), row.Int(3) != 0,
                           WishOf(row.Text(4))};
  });
}

absl::Status TenantStore::ErasePlacement(const PlacementRecord& placement) {
  TENON_ASSIGN_OR_RETURN(
      SqliteStatement row,
      db_.Prepare("DELETE FROM placements WHERE tenant = ? AND adapter = ? AND version = ?"));
  row.Bind(1, placement.tenant);
  row.Bind(2, placement.adapter);
  row.Bind(3, placement.version);
  return row.Run();
}

absl::Status TenantStore::PutPlacement(const PlacementRecord& placement, const AuditEntry& audit) {
  TENON_ASSIGN_OR_RETURN(SqliteTransaction transaction, SqliteTransaction::Begin(&db_));
  TENON_RETURN_IF_ERROR(ErasePlacement(placement));
  if (!placement.says_nothing()) {
    TENON_ASSIGN_OR_RETURN(SqliteStatement row,
                           db_.Prepare("INSERT INTO placements VALUES (?, ?, ?, ?, ?)"));
    row.Bind(1, placement.tenant);
    row.Bind(2, placement.adapter);
    row.Bind(3, placement.version);
    row.Bind(4, int64_t{placement.pinned});
    row.Bind(5, kWishNames[static_cast<int>(placement.merge)]);
    TENON_RETURN_IF_ERROR(row.Run());
  }
  TENON_RETURN_IF_ERROR(InsertAudit(audit));
  return transaction.Commit();
}

absl::Status TenantStore::DropPlacements(const std::vector<PlacementRecord>& placements) {
  TENON_ASSIGN_OR_RETURN(SqliteTransaction transaction, SqliteTransaction::Begin(&db_));
  for (const PlacementRecord& placement : placements) {
    TENON_RETURN_IF_ERROR(ErasePlacement(placement));
  }
  return transaction.Commit();
}

}  // namespace tenon
