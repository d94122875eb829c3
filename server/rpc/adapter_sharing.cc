#include "server/rpc/adapter_sharing.h"

#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"
#include "adapters/registry/adapter_owner.h"

namespace tenon {
namespace {

constexpr int32_t kDefaultPageSize = 100;
constexpr int32_t kMaxPageSize = 1000;

v1::AdapterVisibility ToProto(const ShareRecord& share) {
  v1::AdapterVisibility visibility;
  visibility.set_name(share.adapter);
  if (share.everybody) {
    visibility.set_visibility(v1::VISIBILITY_PUBLIC);
  } else if (share.readers.empty()) {
    visibility.set_visibility(v1::VISIBILITY_PRIVATE);
  } else {
    visibility.set_visibility(v1::VISIBILITY_TENANTS);
    visibility.mutable_tenants()->Assign(share.readers.begin(), share.readers.end());
  }
  return visibility;
}

absl::StatusOr<ShareRecord> FromProto(absl::string_view tenant,
                                      const v1::AdapterVisibility& wanted) {
  ShareRecord share{std::string(tenant), wanted.name(), false, {}};
  const bool names_tenants = wanted.tenants_size() > 0;
  switch (wanted.visibility()) {
    case v1::VISIBILITY_PRIVATE:
      break;
    case v1::VISIBILITY_PUBLIC:
      share.everybody = true;
      break;
    case v1::VISIBILITY_TENANTS:
      if (!names_tenants) {
        return InvalidFieldError("visibility.tenants", "VISIBILITY_TENANTS names no tenant");
      }
      share.readers.assign(wanted.tenants().begin(), wanted.tenants().end());
      return share;
    default:
      return InvalidFieldError("visibility.visibility", "is not set");
  }
  if (names_tenants) {
    return InvalidFieldError("visibility.tenants", "goes with VISIBILITY_TENANTS alone");
  }
  return share;
}

}  // namespace

absl::Status SettleOwner(const TenantDirectory& directory, absl::string_view reader,
                         RequestedAdapter& adapter) {
  if (adapter.owner == reader) {
    adapter.owner.clear();
  }
  if (adapter.owner.empty() || directory.MayUse(reader, adapter.owner, adapter.ref.name)) {
    return absl::OkStatus();
  }
  return AdapterNotFoundError(adapter.ToString());
}

absl::Status AdapterSharing::Get(absl::string_view reader, const v1::GetAdapterRequest& request,
                                 v1::GetAdapterResponse& response) const {
  absl::string_view text = request.adapter();
  TENON_ASSIGN_OR_RETURN(const std::string owner, ConsumeOwner("adapter", &text));
  TENON_ASSIGN_OR_RETURN(const AdapterRef ref, ParseAdapterRef("adapter", text));
  v1::GetAdapterRequest inner;
  inner.set_adapter(std::string(text));
  if (owner.empty() || owner == reader) {
    return catalogue_->Get(reader, inner, response);
  }
  if (!directory_->MayUse(reader, owner, ref.name) ||
      !catalogue_->Get(owner, inner, response).ok()) {
    return AdapterNotFoundError(request.adapter());
  }
  response.mutable_adapter()->set_owner(owner);
  return absl::OkStatus();
}

bool AdapterSharing::IsThere(absl::string_view tenant, absl::string_view name) const {
  const std::shared_ptr<const AdapterName> found = registry_->Find(tenant, name);
  return found != nullptr && !found->versions.empty();
}

absl::Status AdapterSharing::CheckThere(absl::string_view tenant, const std::string& name) const {
  TENON_RETURN_IF_ERROR(ValidateName("visibility.name", name));
  return IsThere(tenant, name) ? absl::OkStatus() : AdapterNotFoundError(name);
}

absl::StatusOr<v1::AdapterVisibility> AdapterSharing::Set(absl::string_view tenant,
                                                          const v1::AdapterVisibility& wanted,
                                                          const AuditSource& source) const {
  TENON_RETURN_IF_ERROR(CheckThere(tenant, wanted.name()));
  TENON_ASSIGN_OR_RETURN(ShareRecord share, FromProto(tenant, wanted));
  TENON_ASSIGN_OR_RETURN(const ShareRecord kept, directory_->Share(std::move(share), source));
  return ToProto(kept);
}

absl::StatusOr<v1::AdapterVisibility> AdapterSharing::Find(absl::string_view tenant,
                                                           const std::string& name) const {
  TENON_RETURN_IF_ERROR(CheckThere(tenant, name));
  return ToProto(directory_->ShareOf(tenant, name));
}

absl::Status AdapterSharing::List(absl::string_view reader,
                                  const v1::ListSharedAdaptersRequest& request,
                                  v1::ListSharedAdaptersResponse& response) const {
  if (request.page_size() < 0 || request.page_size() > kMaxPageSize) {
    return InvalidFieldError(
        "page_size", absl::StrCat(request.page_size(), " is not in [0, ", kMaxPageSize, "]"));
  }
  // A page token is the last entry's name, so that a page stays right whatever changes between.
  std::string after;
  if (!absl::WebSafeBase64Unescape(request.page_token(), &after)) {
    return InvalidFieldError("page_token", "is not a next_page_token of this server");
  }
  const int32_t page_size = request.page_size() == 0 ? kDefaultPageSize : request.page_size();
  std::string last;
  for (const ShareRecord& share : directory_->SharedWith(reader)) {
    const std::string name = absl::StrCat(share.tenant, "/", share.adapter);
    v1::GetAdapterRequest one;
    one.set_adapter(share.adapter);
    v1::GetAdapterResponse found;
    if (name <= after || !catalogue_->Get(share.tenant, one, found).ok()) {
      continue;
    }
    if (response.adapters_size() == page_size) {
      response.set_next_page_token(absl::WebSafeBase64Escape(last));
      break;
    }
    found.mutable_adapter()->set_owner(share.tenant);
    *response.add_adapters() = std::move(*found.mutable_adapter());
    last = name;
  }
  return absl::OkStatus();
}

absl::Status AdapterSharing::ForgetDeleted(absl::string_view tenant, absl::string_view name,
                                           const AuditSource& source) const {
  const ShareRecord share = directory_->ShareOf(tenant, name);
  if ((!share.everybody && share.readers.empty()) || IsThere(tenant, name)) {
    return absl::OkStatus();
  }
  return directory_->Share({std::string(tenant), std::string(name), false, {}}, source).status();
}

}  // namespace tenon
