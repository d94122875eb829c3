// The reading calls of adapters.proto: what the registry knows, as messages.
#ifndef TENON_SERVER_RPC_ADAPTER_CATALOGUE_H_
#define TENON_SERVER_RPC_ADAPTER_CATALOGUE_H_

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "adapters/registry/adapter_registry.h"
#include "adapters/residency/adapter_cache.h"
#include "tenon/v1/adapters.pb.h"

namespace tenon {

/// Answers from snapshots of the registry; thread-safe. Borrows both.
class AdapterCatalogue {
 public:
  AdapterCatalogue(const AdapterRegistry* registry, const AdapterCache* cache)
      : registry_(registry), cache_(cache) {}

  /// INVALID_ARGUMENT for a page size or token that is not one.
  absl::Status List(absl::string_view tenant, const v1::ListAdaptersRequest& request,
                    v1::ListAdaptersResponse& response) const;

  /// NOT_FOUND when the tenant has no such version, live or draining.
  absl::Status Get(absl::string_view tenant, const v1::GetAdapterRequest& request,
                   v1::GetAdapterResponse& response) const;

  v1::Adapter ToProto(const AdapterStatus& status) const;
  v1::NamedAdapter ToProto(const AdapterName& name) const;

 private:
  const AdapterRegistry* const registry_;
  const AdapterCache* const cache_;
};

v1::SplitArm ToProto(const SplitArm& arm);

}  // namespace tenon

#endif  // TENON_SERVER_RPC_ADAPTER_CATALOGUE_H_
