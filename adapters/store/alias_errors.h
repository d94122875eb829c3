// What every store answers to a change of aliases that it refuses.
#ifndef TENON_ADAPTERS_STORE_ALIAS_ERRORS_H_
#define TENON_ADAPTERS_STORE_ALIAS_ERRORS_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "adapters/store/adapter_store.h"

namespace tenon {

/// "name@alias".
std::string AliasOf(const AliasMove& move);

/// ABORTED (ALIAS_MOVED, metadata current_version): the alias is at `current`, 0 for nowhere, and
/// not at move.expected_version, which is set.
absl::Status LostRace(const AliasMove& move, int64_t current);

}  // namespace tenon

#endif  // TENON_ADAPTERS_STORE_ALIAS_ERRORS_H_
