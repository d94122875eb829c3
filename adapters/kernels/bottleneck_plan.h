// BottleneckPlan: the bottleneck modules of one step for the device's kernels.
#ifndef TENON_ADAPTERS_KERNELS_BOTTLENECK_PLAN_H_
#define TENON_ADAPTERS_KERNELS_BOTTLENECK_PLAN_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "adapters/kernels/bottleneck.h"
#include "adapters/kernels/cuda/adapter_kernels.h"
#include "adapters/kernels/device_tables.h"

namespace tenon {

/// As DeltaPlan, for what stands behind sublayers: tables made on the host, copied to the device at
/// once, and read there by the kernels. A value of one step; borrows the modules and the tables.
class BottleneckPlan {
 public:
  /// What each sublayer and the step have room for (DeltaPlan::Frame).
  struct Frame {
    int64_t max_groups = 0;            ///< row groups of one sublayer
    int64_t max_terms = 0;             ///< of all sublayers
    at::Tensor inputs, values, inner;  ///< [elements] fp32 on the device, for any sublayer
  };

  BottleneckPlan() = default;
  explicit BottleneckPlan(Frame frame) : frame_(std::move(frame)), is_framed_(true) {}

  /// Adds the modules behind one sublayer and returns its number. Terms, one behind another, have
  /// the same rows or such as come behind all before them; their modules are on the device. Throws
  /// c10::Error when not, and when modules do not fit one another.
  size_t Add(std::span<const BottleneckTerm> terms);

  /// The same in a frame, for streams [T, hidden] of that dtype. There may be no terms.
  size_t AddFramed(std::span<const BottleneckTerm> terms, int64_t hidden, at::ScalarType dtype);

  bool empty() const { return sublayers_.empty(); }
  /// Whether the terms are within the frame, if any.
  bool fits() const;

  /// Adds the tables to those of a step on `device`, behind the last Add. Apply comes behind their
  /// upload.
  void Stage(DeviceTables& tables, at::Device device);

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
  /// Elements of Frame::inputs and Frame::inner that the largest sublayer takes.
  std::pair<int64_t, int64_t> ScratchSizes() const;

  std::vector<Sublayer> sublayers_;
  std::vector<cuda::BottleneckEntry> entries_;
  std::vector<cuda::RowGroup> groups_;
  Frame frame_;  // without one: memory of its own, for the largest sublayer; used again by each
  bool is_framed_ = false;
  bool has_overflown_ = false;  // a sublayer has more groups than the frame
  const DeviceTables* tables_ = nullptr;
  DeviceTable<cuda::BottleneckEntry> staged_entries_;
  DeviceTable<cuda::RowGroup> staged_groups_;
};

}  // namespace tenon

#endif  // TENON_ADAPTERS_KERNELS_BOTTLENECK_PLAN_H_
