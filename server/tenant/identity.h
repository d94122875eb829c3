// Who calls, and what he may do.
#ifndef TENON_SERVER_TENANT_IDENTITY_H_
#define TENON_SERVER_TENANT_IDENTITY_H_

#include <cstdint>
#include <initializer_list>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace tenon {

/// What a credential is for. Roles do not include one another; MethodPolicy lists those that each
/// method accepts.
enum class Role : uint8_t {
  kInference,      ///< generates, reads the tenant's adapters
  kAdapterWriter,  ///< also uploads and deletes adapters
  kTenantAdmin,    ///< also issues the tenant's keys, reads its usage and its audit log
  kOperator,       ///< creates, limits and deletes tenants; sees no adapter and no prompt
};

inline constexpr Role kAllRoles[] = {Role::kInference, Role::kAdapterWriter, Role::kTenantAdmin,
                                     Role::kOperator};

/// "inference", "adapter-writer", "tenant-admin", "operator".
absl::string_view RoleName(Role role);

/// INVALID_ARGUMENT, naming `field`, for a text that is no role's name.
absl::StatusOr<Role> ParseRole(absl::string_view field, absl::string_view name);

/// A set of roles. A plain value.
class RoleSet {
 public:
  constexpr RoleSet() = default;
  constexpr RoleSet(std::initializer_list<Role> roles) {
    for (const Role role : roles) {
      Add(role);
    }
  }
  static constexpr RoleSet All() {
    return {Role::kInference, Role::kAdapterWriter, Role::kTenantAdmin, Role::kOperator};
  }

  constexpr void Add(Role role) { bits_ |= Bit(role); }
  constexpr bool contains(Role role) const { return (bits_ & Bit(role)) != 0; }
  constexpr bool empty() const { return bits_ == 0; }
  /// Whether any role is in both.
  constexpr bool Meets(RoleSet other) const { return (bits_ & other.bits_) != 0; }
  friend constexpr bool operator==(RoleSet, RoleSet) = default;

  /// "inference, tenant-admin".
  std::string ToString() const;

 private:
  static constexpr uint8_t Bit(Role role) {
    return static_cast<uint8_t>(1u << static_cast<uint8_t>(role));
  }
  uint8_t bits_ = 0;
};

/// The answer of an authentication.
struct Identity {
  std::string tenant;  ///< empty for an operator, who belongs to none
  RoleSet roles;
  /// What proved it, fit for logs: "key:<id>", "jwt:<subject>", "certificate:<name>", "local".
  std::string credential;
};

}  // namespace tenon

#endif  // TENON_SERVER_TENANT_IDENTITY_H_
