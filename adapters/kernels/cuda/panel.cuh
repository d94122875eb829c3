// Products with the panels of a packed matrix (adapters/kernels/packed_matrix.h).
#ifndef TENON_ADAPTERS_KERNELS_CUDA_PANEL_CUH_
#define TENON_ADAPTERS_KERNELS_CUDA_PANEL_CUH_

#include "adapters/kernels/cuda/adapter_kernels.h"
#include "adapters/kernels/cuda/element.cuh"

namespace tenon::cuda {

constexpr int kPanelColumns = 32;

// Consecutive inputs that lie next to each other in a panel.
template <typename T>
constexpr int kPanelGroup = sizeof(T) == 2 ? 2 : 1;

// sums[row] += x[row, begin:end] @ W[column, begin:end]^T for num_rows rows of x, which is fp32
// with x_stride elements from a row to the next. A warp's columns are one panel.
template <typename T>
__device__ __forceinline__ void AddPanelProduct(const void* panels, int64_t panel_stride,
                                                int column, const float* x, int64_t x_stride,
                                                int num_rows, int begin, int end,
                                                float (&sums)[kGroupRows]) {
  constexpr int kGroup = kPanelGroup<T>;
  const T* const panel = static_cast<const T*>(panels) + column / kPanelColumns * panel_stride +
                         column % kPanelColumns * kGroup;
  for (int i = begin; i < end; ++i) {
    const float w = ToFloat(panel[i / kGroup * kPanelColumns * kGroup + i % kGroup]);
    for (int row = 0; row < num_rows; ++row) {
      sums[row] += x[row * x_stride + i] * w;
    }
  }
}

}  // namespace tenon::cuda

#endif  // TENON_ADAPTERS_KERNELS_CUDA_PANEL_CUH_
