#include "server/rpc/placements.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "adapters/registry/adapter_selection.h"
#include "server/telemetry/logging.h"

namespace tenon {
namespace {

MergeWish WishOf(MergeMode mode) {
  switch (mode) {
    case MergeMode::kAlways:
      return MergeWish::kAlways;
    case MergeMode::kNever:
      return MergeWish::kNever;
    case MergeMode::kAuto:
      break;
  }
  return MergeWish::kAuto;
}

// On whatever thread ends the work.
void LogOutcome(absl::string_view what, const AdapterId& id, const absl::Status& status) {
  LogLine line(status.ok() ? LogLevel::kInfo : LogLevel::kWarning, "placement_restored");
  line.Add("adapter", id.ToString()).Add("placement", what);
  if (!status.ok()) {
    line.Add("error", status);
  }
}

void RestorePin(AdapterCache& device, const AdapterHandle& adapter) {
  const absl::Status pinned =
      device.PinResident(adapter, [id = adapter.id(), digest = adapter->digest, cache = &device] {
        LogOutcome("pinned", id, cache->Pin(digest).status());
      });
  if (!pinned.ok()) {
    LogOutcome("pinned", adapter.id(), pinned);
  }
}

void RestoreMerge(MergeTier& merged, const AdapterHandle& adapter, MergeMode mode) {
  merged.SetMode(Alone(adapter), mode, [id = adapter.id(), mode](const absl::Status& status) {
    LogOutcome(mode == MergeMode::kAlways ? "merged" : "never merged", id, status);
  });
}

}  // namespace

std::shared_ptr<const AdapterSelection> Alone(const AdapterHandle& adapter) {
  return std::make_shared<const AdapterSelection>(std::vector<WeightedAdapter>{{adapter, 1.0f}});
}

MergeMode ModeOf(MergeWish wish) {
  switch (wish) {
    case MergeWish::kAlways:
      return MergeMode::kAlways;
    case MergeWish::kNever:
      return MergeMode::kNever;
    case MergeWish::kAuto:
      break;
  }
  return MergeMode::kAuto;
}

PlacementRecord PlacementOf(const TenantDirectory& directory, const AdapterId& id) {
  return directory.PlacementOf(id.tenant, id.name, id.version);
}

absl::Status KeepPlacement(TenantDirectory& directory, const AdapterId& id,
                           const PlacementChange& change, const AuditSource& source) {
  PlacementRecord placement = PlacementOf(directory, id);
  placement.pinned = change.pinned.value_or(placement.pinned);
  if (change.merge.has_value()) {
    placement.merge = WishOf(*change.merge);
  }
  return directory.Place(placement, source);
}

void ForgetPlacements(TenantDirectory& directory, absl::string_view tenant, absl::string_view name,
                      std::span<const int64_t> versions) {
  std::vector<PlacementRecord> gone;
  for (const int64_t version : versions) {
    PlacementRecord placement = directory.PlacementOf(tenant, name, version);
    if (!placement.says_nothing()) {
      gone.push_back(std::move(placement));
    }
  }
  if (gone.empty()) {
    return;
  }
  if (const absl::Status dropped = directory.DropPlacements(gone); !dropped.ok()) {
    LogLine(LogLevel::kWarning, "placement_kept").Add("adapter", name).Add("error", dropped);
  }
}

void RestorePlacements(TenantDirectory& directory, const AdapterRegistry& registry,
                       const ResidencyTiers& tiers, bool catalogue_known) {
  std::vector<PlacementRecord> gone;
  for (const PlacementRecord& placement : directory.Placements()) {
    const absl::StatusOr<AdapterHandle> adapter =
        registry.Acquire(placement.tenant, {placement.adapter, placement.version, ""});
    if (adapter.ok()) {
      if (placement.pinned) {
        RestorePin(*tiers.device, *adapter);
      }
      if (placement.merge != MergeWish::kAuto) {
        RestoreMerge(*tiers.merged, *adapter, ModeOf(placement.merge));
      }
    } else if (catalogue_known && absl::IsNotFound(adapter.status())) {
      gone.push_back(placement);
    }
  }
  if (!gone.empty()) {
    if (const absl::Status dropped = directory.DropPlacements(gone); !dropped.ok()) {
      LogLine(LogLevel::kWarning, "placement_kept").Add("error", dropped);
    }
  }
}

}  // namespace tenon
