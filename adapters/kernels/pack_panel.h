// The layout of one panel of a packed matrix.
#ifndef TENON_ADAPTERS_KERNELS_PACK_PANEL_H_
#define TENON_ADAPTERS_KERNELS_PACK_PANEL_H_

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>

#include "adapters/kernels/gemm_kernels.h"

namespace tenon {

/// Consecutive k that lie next to each other: two for bf16 (uint16_t), one for fp32.
template <typename T>
inline constexpr int64_t kPanelGroup = sizeof(T) == 2 ? 2 : 1;

/// Elements of a panel of that many k.
template <typename T>
constexpr int64_t PanelElements(int64_t k) {
  return (k + kPanelGroup<T> - 1) / kPanelGroup<T> * kPanelGroup<T> * kPanelColumns;
}

/// Writes up to 32 rows of a weight matrix, each [k] of any alignment, as the columns of a panel
/// [ceil(k / group), 32, group]; columns behind the last row and an odd k's partner become zero.
template <typename T>
void PackPanel(std::span<const T* const> rows, int64_t k, T* panel) {
  constexpr int64_t kGroup = kPanelGroup<T>;
  if (static_cast<int64_t>(rows.size()) < kPanelColumns || k % kGroup != 0) {
    std::fill_n(panel, PanelElements<T>(k), T{0});
  }
  for (size_t c = 0; c < rows.size(); ++c) {
    T* column = panel + static_cast<int64_t>(c) * kGroup;
    const char* row = reinterpret_cast<const char*>(rows[c]);
    int64_t i = 0;
    for (; i + kGroup <= k; i += kGroup, column += kPanelColumns * kGroup) {
      std::memcpy(column, row + i * static_cast<int64_t>(sizeof(T)), kGroup * sizeof(T));
    }
    if (i < k) {
      std::memcpy(column, row + i * static_cast<int64_t>(sizeof(T)), sizeof(T));
    }
  }
}

}  // namespace tenon

#endif  // TENON_ADAPTERS_KERNELS_PACK_PANEL_H_
