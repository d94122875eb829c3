// LoRA and rsLoRA: one low-rank delta per module.
#ifndef TENON_ADAPTERS_METHODS_LORA_H_
#define TENON_ADAPTERS_METHODS_LORA_H_

#include "absl/status/status.h"
#include "adapters/methods/compiler.h"

namespace tenon {

/// Adds the spec's deltas to `adapter` and counts them in `report`. Errors as Compile. May throw
/// what LibTorch throws.
absl::Status CompileLora(const LoraSpec& spec, const BaseShape& base, at::ScalarType dtype,
                         CompiledAdapter* adapter, CompileReport* report);

}  // namespace tenon

#endif  // TENON_ADAPTERS_METHODS_LORA_H_
