// Whether a tensor's bytes hold NaN or Inf.
#ifndef TENON_ADAPTERS_FORMATS_FINITE_H_
#define TENON_ADAPTERS_FORMATS_FINITE_H_

#include <cstdint>
#include <optional>

#include "adapters/formats/safetensors.h"

namespace tenon {

/// The index of the first element that is NaN or Inf, if any. dtype F32, F16 or BF16; other dtypes
/// read as finite. Runs at about memory speed.
std::optional<int64_t> FindNonFinite(const TensorView& tensor);

}  // namespace tenon

#endif  // TENON_ADAPTERS_FORMATS_FINITE_H_
