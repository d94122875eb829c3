// From a PEFT adapter folder to a CompiledAdapter, the way an upload goes.
#ifndef TENON_TESTS_GOLDEN_ADAPTER_FILES_H_
#define TENON_TESTS_GOLDEN_ADAPTER_FILES_H_

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "adapters/methods/base_shape.h"
#include "adapters/methods/compiled_adapter.h"

namespace tenon {

/// Reads adapter_config.json and adapter_model.safetensors of a folder, parses and compiles them.
absl::StatusOr<std::shared_ptr<const CompiledAdapter>> CompileAdapterFolder(
    const std::string& folder, const BaseShape& base, at::ScalarType dtype);

}  // namespace tenon

#endif  // TENON_TESTS_GOLDEN_ADAPTER_FILES_H_
