// BottleneckPlan: the bottleneck modules of one step for the device's kernels.
#ifndef TENON_ADAPTERS_KERNELS_BOTTLENECK_PLAN_H_
#define TENON_ADAPTERS_KERNELS_BOTTLENECK_PLAN_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "adapters/kernels/bottleneck.h"
#include "adapters/kernels/cuda/adapter_kernels.h"

namespace tenon {

/// As DeltaPlan, for what stands behind sublayers: tables made on the host, copied to the device at
/// once, and read there by the kernels. A value of one step; borrows the modules.
class BottleneckPlan {
 public:
  /// Adds the modules behind one sublayer and returns its number. Terms, one behind another, have
  /// the same rows or such as come behind all before them; their modules are on the device. Throws
  /// c10::Error when not, and when modules do not fit one another.
  size_t Add(std::span<const BottleneckTerm> terms);

  bool empty() const { return sublayers_.empty(); }

  /// Copies the tables. Once, behind the last Add and in front of the first Apply.
  void Upload(at::Device device);

  /// ApplyBottleneck of the sublayer's terms, but that terms of the same rows are rounded once.
  void Apply(size_t sublayer, const at::Tensor& residual, const at::Tensor& out) const;

 private:
  struct Sublayer {
    size_t group_begin = 0, group_end = 0;
    int64_t hidden = 0;
    int64_t row_end = 0;                   // behind the last of the groups
    int64_t max_rows = 0, max_width = 0;   // of a group, of a module
    int64_t num_rows = 0, inner_size = 0;  // of all terms
    at::ScalarType dtype = at::ScalarType::Undefined;
  };

  static void CheckModule(const BottleneckDelta& module, Sublayer& sublayer);
  /// Terms that share rows, cut into groups of rows.
  void AddSegment(std::span<const BottleneckTerm> terms, Sublayer& sublayer);

  std::vector<Sublayer> sublayers_;
  std::vector<cuda::BottleneckEntry> entries_;
  std::vector<cuda::RowGroup> groups_;
  at::Tensor device_entries_, device_groups_;  // bytes
  at::Tensor inputs_, values_, inner_;         // for the largest sublayer; used again by each
};

}  // namespace tenon

#endif  // TENON_ADAPTERS_KERNELS_BOTTLENECK_PLAN_H_
