// Prompt tuning, P-tuning and prefix tuning: virtual tokens in front of every sequence.
#ifndef TENON_ADAPTERS_METHODS_CONTEXT_H_
#define TENON_ADAPTERS_METHODS_CONTEXT_H_

#include "absl/status/status.h"
#include "adapters/methods/adapter_builder.h"

namespace tenon {

/// Virtual tokens as embeddings. Errors as Compile.
absl::Status CompilePrompt(const PromptSpec& spec, AdapterBuilder& builder);

/// Virtual tokens as the keys and values of every layer, which enter the cache as they are. Errors
/// as Compile.
absl::Status CompilePrefix(const PrefixSpec& spec, AdapterBuilder& builder);

}  // namespace tenon

#endif  // TENON_ADAPTERS_METHODS_CONTEXT_H_
