// What an adapter of any method may carry beside it: biases, token rows, saved modules.
#ifndef TENON_ADAPTERS_METHODS_SHARED_PARTS_H_
#define TENON_ADAPTERS_METHODS_SHARED_PARTS_H_

#include "absl/status/status.h"
#include "adapters/methods/adapter_builder.h"

namespace tenon {

/// Adds the parts: a bias as its difference to the base's, rows and matrices of the embedding and
/// the head as they are. On a base with a tied head, rows of the embedding are rows of the head,
/// too, unless the adapter has its own. A copy of a base matrix is not applied, but compared:
/// FAILED_PRECONDITION (BASE_MISMATCH) when it is another base's. Errors as Compile.
absl::Status CompileSharedParts(const SharedParts& parts, AdapterBuilder& builder);

}  // namespace tenon

#endif  // TENON_ADAPTERS_METHODS_SHARED_PARTS_H_
