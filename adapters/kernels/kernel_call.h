// What a call of one of the device's kernels takes, whichever table it is in.
#ifndef TENON_ADAPTERS_KERNELS_KERNEL_CALL_H_
#define TENON_ADAPTERS_KERNELS_KERNEL_CALL_H_

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>
#include <c10/util/Exception.h>

#include "adapters/kernels/cuda/adapter_kernels.h"
#include "adapters/kernels/device.h"

namespace tenon {

/// The kernels' name of a dtype. Throws c10::Error, naming `name`, on another than fp32 or bf16.
inline cuda::ElementType ElementTypeOf(at::ScalarType dtype, const char* name) {
  TORCH_CHECK(dtype == at::kFloat || dtype == at::kBFloat16, name, ": ", dtype,
              ", want fp32 or bf16");
  return dtype == at::kFloat ? cuda::ElementType::kFloat32 : cuda::ElementType::kBFloat16;
}

/// The functions of the kernels' library for adapters. Throws as KernelTable's search.
inline const cuda::AdapterKernels& AdapterKernels() {
  static const auto& kernels = KernelTable<cuda::AdapterKernels>(TENON_ADAPTER_KERNELS_SYMBOL);
  return kernels;
}

/// Runs it on the device's current stream. Throws c10::Error, `name` and what it finds wrong.
template <typename Call>
void RunKernel(const char* (*kernel)(const Call&, void*), const Call& call, c10::Device device,
               const char* name) {
  const char* const problem = kernel(call, CurrentStream(device));
  TORCH_CHECK(problem == nullptr, name, ": ", problem);
}

}  // namespace tenon

#endif  // TENON_ADAPTERS_KERNELS_KERNEL_CALL_H_
