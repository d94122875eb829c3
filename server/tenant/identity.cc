#include "server/tenant/identity.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "adapters/base/errors.h"

namespace tenon {

absl::string_view RoleName(Role role) {
  switch (role) {
    case Role::kInference:
      return "inference";
    case Role::kAdapterWriter:
      return "adapter-writer";
    case Role::kTenantAdmin:
      return "tenant-admin";
    case Role::kOperator:
      return "operator";
  }
  return "";
}

absl::StatusOr<Role> ParseRole(absl::string_view field, absl::string_view name) {
  for (const Role role : kAllRoles) {
    if (RoleName(role) == name) {
      return role;
    }
  }
  return InvalidFieldError(
      field, absl::StrCat(Quoted(name), " is none of the roles ", RoleSet::All().ToString()));
}

std::string RoleSet::ToString() const {
  std::vector<absl::string_view> names;
  for (const Role role : kAllRoles) {
    if (contains(role)) {
      names.push_back(RoleName(role));
    }
  }
  return absl::StrJoin(names, ", ");
}

}  // namespace tenon
