// Bottleneck adapters of AdapterHub: Houlsby, Pfeiffer, parallel.
#ifndef TENON_ADAPTERS_METHODS_BOTTLENECK_H_
#define TENON_ADAPTERS_METHODS_BOTTLENECK_H_

#include "absl/status/status.h"
#include "adapters/methods/adapter_builder.h"

namespace tenon {

/// Adds the spec's modules, placed as adapters 1.3.0 does (methods/modeling.py, Adapter and
/// ParallelAdapter). Its decoders pass no layer norm to the module, so that original_ln_before adds
/// the residual stream to the input without a norm. Where the base has post-norms (Gemma) the
/// library's hooks pass the post-norm of the last layer to every layer: what such adapters were
/// trained with, and what is computed here. Errors as Compile; FAILED_PRECONDITION (UNSUPPORTED)
/// for combinations that the library cannot run on this base.
absl::Status CompileBottlenecks(const BottleneckSpec& spec, AdapterBuilder& builder);

}  // namespace tenon

#endif  // TENON_ADAPTERS_METHODS_BOTTLENECK_H_
