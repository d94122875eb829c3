// Adapters of other tenants: who may name them, and the calls that say so.
#ifndef TENON_SERVER_RPC_ADAPTER_SHARING_H_
#define TENON_SERVER_RPC_ADAPTER_SHARING_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/engine/text_request.h"
#include "server/rpc/adapter_catalogue.h"
#include "server/tenant/tenant_directory.h"
#include "tenon/v1/adapters.pb.h"

namespace tenon {

/// Settles whose adapter a request of `reader` names. One that is not shared with him reads the
/// same, to the byte, as one that does not exist, of a tenant that may not exist either.
absl::Status SettleOwner(const TenantDirectory& directory, absl::string_view reader,
                         RequestedAdapter& adapter);

/// The sharing calls of adapters.proto. Thread-safe; borrows all.
class AdapterSharing {
 public:
  AdapterSharing(const AdapterRegistry* registry, const AdapterCatalogue* catalogue,
                 TenantDirectory* directory)
      : registry_(registry), catalogue_(catalogue), directory_(directory) {}

  /// GetAdapter of "name" or "owner/name", with a version or without.
  absl::Status Get(absl::string_view reader, const v1::GetAdapterRequest& request,
                   v1::GetAdapterResponse& response) const;

  /// NOT_FOUND when the tenant has no live version of that name. Does I/O.
  absl::StatusOr<v1::AdapterVisibility> Set(absl::string_view tenant,
                                            const v1::AdapterVisibility& wanted,
                                            const AuditSource& source) const;
  absl::StatusOr<v1::AdapterVisibility> Find(absl::string_view tenant,
                                             const std::string& name) const;

  /// What others share with `reader` and is live.
  absl::Status List(absl::string_view reader, const v1::ListSharedAdaptersRequest& request,
                    v1::ListSharedAdaptersResponse& response) const;

  /// After a deletion: a name without a live version is private again, so that what is uploaded
  /// under it later is not shared unseen. Does I/O.
  absl::Status ForgetDeleted(absl::string_view tenant, absl::string_view name,
                             const AuditSource& source) const;

 private:
  bool IsThere(absl::string_view tenant, absl::string_view name) const;
  absl::Status CheckThere(absl::string_view tenant, const std::string& name) const;

  const AdapterRegistry* const registry_;
  const AdapterCatalogue* const catalogue_;
  TenantDirectory* const directory_;
};

}  // namespace tenon

#endif  // TENON_SERVER_RPC_ADAPTER_SHARING_H_
