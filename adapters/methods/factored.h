// VeRA, LoHa and LoKr: structured matrices, folded into low-rank or dense deltas.
#ifndef TENON_ADAPTERS_METHODS_FACTORED_H_
#define TENON_ADAPTERS_METHODS_FACTORED_H_

#include "absl/status/status.h"
#include "adapters/methods/adapter_builder.h"

namespace tenon {

/// Each folds every module into what the kernels know, in fp32, and rounds once. What that costs,
/// in elements a module, against the numbers in the file:
///   VeRA  rank * (in + out), although the modules of the file share one A and B
///   LoHa  rank^2 * (in + out), or in * out where that is less; the file has 2 rank * (in + out)
///   LoKr  r1 * r2 * (in + out), r1 and r2 the ranks of the factors, or in * out where that is less
/// The report's warnings give the sum. Errors as Compile.
absl::Status CompileVera(const VeraSpec& spec, AdapterBuilder& builder);
absl::Status CompileLoha(const LohaSpec& spec, AdapterBuilder& builder);
absl::Status CompileLokr(const LokrSpec& spec, AdapterBuilder& builder);

}  // namespace tenon

#endif  // TENON_ADAPTERS_METHODS_FACTORED_H_
