// ResidencyReport: what registry, cache and tiers know of adapters, as messages of residency.proto.
#ifndef TENON_SERVER_RPC_RESIDENCY_REPORT_H_
#define TENON_SERVER_RPC_RESIDENCY_REPORT_H_

#include "absl/strings/string_view.h"
#include "adapters/registry/adapter_registry.h"
#include "adapters/residency/adapter_cache.h"
#include "adapters/residency/host_tier.h"
#include "server/engine/merge_tier.h"
#include "tenon/v1/residency.pb.h"

namespace tenon {

/// The tiers, top down. Pointers are borrowed; never null.
struct ResidencyTiers {
  MergeTier* merged = nullptr;
  AdapterCache* device = nullptr;
  HostTier* host = nullptr;
};

/// Answers from snapshots; thread-safe.
class ResidencyReport {
 public:
  ResidencyReport(const AdapterRegistry* registry, const ResidencyTiers& tiers)
      : registry_(registry), tiers_(tiers) {}

  /// Every version of the tenant, live and draining, in the order of the registry.
  void AddTenant(absl::string_view tenant, v1::GetResidencyResponse& response) const;
  v1::AdapterResidency Of(const AdapterHandle& adapter) const;
  v1::ResidencyTotals Totals() const;

 private:
  const AdapterRegistry* const registry_;
  const ResidencyTiers tiers_;
};

v1::MergeMode ToProto(MergeMode mode);

}  // namespace tenon

#endif  // TENON_SERVER_RPC_RESIDENCY_REPORT_H_
