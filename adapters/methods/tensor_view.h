// From a file's bytes to a tensor.
#ifndef TENON_ADAPTERS_METHODS_TENSOR_VIEW_H_
#define TENON_ADAPTERS_METHODS_TENSOR_VIEW_H_

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include "adapters/formats/safetensors.h"

namespace tenon {

/// A copy of `view` (F32, F16 or BF16) as a contiguous CPU tensor of the same shape and of `dtype`.
/// The view may be unaligned. May throw what LibTorch throws.
at::Tensor CopyToTensor(const TensorView& view, at::ScalarType dtype);

}  // namespace tenon

#endif  // TENON_ADAPTERS_METHODS_TENSOR_VIEW_H_
