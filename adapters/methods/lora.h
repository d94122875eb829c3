// LoRA, rsLoRA and DoRA: one low-rank delta per module.
#ifndef TENON_ADAPTERS_METHODS_LORA_H_
#define TENON_ADAPTERS_METHODS_LORA_H_

#include "absl/status/status.h"
#include "adapters/methods/adapter_builder.h"

namespace tenon {

/// Adds the spec's deltas. DoRA's column norms of W + scaling * B A are computed here, once: with m
/// the magnitude over them,
///   y = m * (W x + scaling * (B A x + b_bias)) + b = y0 * (1 + (m - 1)) - (m - 1) b + m * ...
/// as PEFT 0.21.2 treats the base's bias b. Errors as Compile.
absl::Status CompileLora(const LoraSpec& spec, AdapterBuilder& builder);

}  // namespace tenon

#endif  // TENON_ADAPTERS_METHODS_LORA_H_
