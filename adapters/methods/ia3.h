// IA3 (arXiv:2205.05638): a factor on the input or the output of a linear layer.
#ifndef TENON_ADAPTERS_METHODS_IA3_H_
#define TENON_ADAPTERS_METHODS_IA3_H_

#include "absl/status/status.h"
#include "adapters/methods/adapter_builder.h"

namespace tenon {

/// Adds the spec's gains. An input gain of a layer that shares its input becomes a dense delta,
/// which the report's warnings tell. Errors as Compile.
absl::Status CompileIa3(const Ia3Spec& spec, AdapterBuilder& builder);

}  // namespace tenon

#endif  // TENON_ADAPTERS_METHODS_IA3_H_
