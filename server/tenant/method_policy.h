// MethodPolicy: which roles may call which method. One table, for every method of every listener.
#ifndef TENON_SERVER_TENANT_METHOD_POLICY_H_
#define TENON_SERVER_TENANT_METHOD_POLICY_H_

#include <span>

#include "absl/strings/string_view.h"
#include "server/tenant/identity.h"

namespace tenon {

struct MethodPolicy {
  /// As descriptors write it: "tenon.v1.AdapterService.ListAdapters".
  absl::string_view method;
  /// Any one of these suffices. Empty: open to everybody, without credentials.
  RoleSet roles;
};

/// The whole table. A test compares it with the services that the binary registers.
std::span<const MethodPolicy> MethodPolicies();

/// By full name, or by the last part of one of our own ("ListAdapters"), which are distinct. Null:
/// no such method, which nobody may call.
const MethodPolicy* FindMethodPolicy(absl::string_view method);

}  // namespace tenon

#endif  // TENON_SERVER_TENANT_METHOD_POLICY_H_
