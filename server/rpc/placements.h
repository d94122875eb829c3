// Placements: what operators say about where adapters are, kept on disk and in force after a start.
#ifndef TENON_SERVER_RPC_PLACEMENTS_H_
#define TENON_SERVER_RPC_PLACEMENTS_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "adapters/registry/adapter_registry.h"
#include "adapters/registry/adapter_selection.h"
#include "server/rpc/residency_report.h"
#include "server/tenant/tenant_directory.h"

namespace tenon {

/// What changes of a placement; what is not set stays as it is.
struct PlacementChange {
  std::optional<bool> pinned;
  std::optional<MergeMode> merge;
};

/// What holds for a version.
PlacementRecord PlacementOf(const TenantDirectory& directory, const AdapterId& id);

/// Keeps the change, with its audit entry, in one transaction. On a worker: it does I/O. The tiers
/// are the caller's.
absl::Status KeepPlacement(TenantDirectory& directory, const AdapterId& id,
                           const PlacementChange& change, const AuditSource& source);

/// Forgets what was said about versions that were deleted. What cannot be forgotten now is
/// forgotten at the next start and means nothing until then: no version's number is used again.
void ForgetPlacements(TenantDirectory& directory, absl::string_view tenant, absl::string_view name,
                      std::span<const int64_t> versions);

MergeMode ModeOf(MergeWish wish);

/// What an operator's word about merging is about: the adapter by itself, with weight 1.
std::shared_ptr<const AdapterSelection> Alone(const AdapterHandle& adapter);

/// Puts all that is kept in force: pinned adapters begin to load and merges are begun, without
/// waiting for either. What the budgets do not allow any more is logged and stays on disk. Records
/// of versions that are not there are forgotten when `catalogue_known`, else passed over.
void RestorePlacements(TenantDirectory& directory, const AdapterRegistry& registry,
                       const ResidencyTiers& tiers, bool catalogue_known);

}  // namespace tenon

#endif  // TENON_SERVER_RPC_PLACEMENTS_H_
