// Adapters of other tenants: how a request names them, and how it hears that there is none.
#ifndef TENON_ADAPTERS_REGISTRY_ADAPTER_OWNER_H_
#define TENON_ADAPTERS_REGISTRY_ADAPTER_OWNER_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "adapters/registry/adapter_id.h"

namespace tenon {

/// Takes "owner/" from the front of "owner/name@version", where one tenant names an adapter of
/// another, and returns the owner; "" when there is none. INVALID_ARGUMENT, naming `field`, when
/// the owner is no name.
absl::StatusOr<std::string> ConsumeOwner(absl::string_view field, absl::string_view* text);

/// What `reader` calls an adapter, without a version: "name" of its own, "owner/name" of another's.
std::string NameFor(absl::string_view reader, const AdapterId& id);

/// NOT_FOUND (ADAPTER_NOT_FOUND) for what a client called `ref`, "owner/name@version". Whatever the
/// reason, the same bytes: another tenant's adapter looks like one that does not exist.
absl::Status AdapterNotFoundError(absl::string_view ref);

}  // namespace tenon

#endif  // TENON_ADAPTERS_REGISTRY_ADAPTER_OWNER_H_
