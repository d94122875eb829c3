// How rows are cut for the device's kernels.
#ifndef TENON_ADAPTERS_KERNELS_ROW_GROUPS_H_
#define TENON_ADAPTERS_KERNELS_ROW_GROUPS_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "adapters/kernels/cuda/adapter_kernels.h"

namespace tenon {

/// Calls visit(group) for rows [begin, end) in groups of at most cuda::kGroupRows; of a group its
/// rows alone are set.
template <typename Visit>
void ForEachRowGroup(int64_t begin, int64_t end, Visit visit) {
  for (int64_t row = begin; row < end; row += cuda::kGroupRows) {
    cuda::RowGroup group{};
    group.row_begin = static_cast<int32_t>(row);
    group.num_rows = static_cast<int32_t>(std::min<int64_t>(cuda::kGroupRows, end - row));
    visit(group);
  }
}

/// Adds groups without rows until there are `room` from `begin` on. False when there are more.
inline bool PadRowGroups(std::vector<cuda::RowGroup>& groups, size_t begin, int64_t room) {
  const size_t end = begin + static_cast<size_t>(room);
  const bool fit = groups.size() <= end;
  groups.resize(std::max(end, groups.size()));
  return fit;
}

}  // namespace tenon

#endif  // TENON_ADAPTERS_KERNELS_ROW_GROUPS_H_
