// The memory of tensors, as kernels see it.
#ifndef TENON_ADAPTERS_KERNELS_TENSOR_DATA_H_
#define TENON_ADAPTERS_KERNELS_TENSOR_DATA_H_

#include <ATen/core/Tensor.h>
#include <ATen/ops/from_blob.h>

#include <cstdint>
#include <vector>

namespace tenon {

/// The elements of a tensor in host memory as T, whatever its dtype is called: bf16 is uint16_t to
/// the kernels. Writable, since a tensor's constness says nothing of its elements.
template <typename T>
T* Data(const at::Tensor& tensor) {
  return static_cast<T*>(tensor.mutable_data_ptr());
}

/// The bytes of `values` on `device` (not the CPU, whose tensor would borrow them) as elements of
/// `dtype`: [values.size() * sizeof(T) / size of dtype].
template <typename T>
at::Tensor ToDevice(std::vector<T>& values, at::ScalarType dtype, at::Device device) {
  const auto count = static_cast<int64_t>(values.size() * sizeof(T) / at::elementSize(dtype));
  return at::from_blob(values.data(), {count}, at::TensorOptions(dtype)).to(device);
}

}  // namespace tenon

#endif  // TENON_ADAPTERS_KERNELS_TENSOR_DATA_H_
