// DeltaPlan: the deltas of one step's linear layers for the device's kernels.
#ifndef TENON_ADAPTERS_KERNELS_DELTA_PLAN_H_
#define TENON_ADAPTERS_KERNELS_DELTA_PLAN_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "adapters/kernels/cuda/adapter_kernels.h"
#include "adapters/kernels/device_tables.h"
#include "adapters/kernels/low_rank.h"

namespace tenon {

/// Segment tables of all products of a step, made on the host, copied to the device at once, and
/// read there by the kernels. A value of one step; borrows the deltas and the tables.
///
///   DeltaPlan plan;
///   const size_t qkv = plan.Add(terms);
///   plan.Stage(tables);
///   tables.Upload();
///   plan.Apply(qkv, x, y);
///
/// Framed, what Apply launches depends on the frame alone, and finds the terms in the tables: a
/// CUDA graph of it serves every step that fits the frame.
class DeltaPlan {
 public:
  /// What each product and the step have room for.
  struct Frame {
    int64_t max_groups = 0;  ///< row groups (ForEachRowGroup) of one site of a product
    int64_t max_terms = 0;   ///< of all products
    at::Tensor scratch;      ///< [elements] fp32 on the device, for any product
  };

  DeltaPlan() = default;
  explicit DeltaPlan(Frame frame) : frame_(std::move(frame)), is_framed_(true) {}

  /// One adapter's delta at one site, on the device, for a run of rows.
  struct Term {
    int64_t begin = 0, end = 0;              ///< rows of x and y
    int64_t column = 0, num_columns = 0;     ///< of y
    const LowRankDelta* low_rank = nullptr;  ///< Fits, or null for none
    at::Tensor gain, offset;                 ///< [num_columns] fp32, or undefined for zeros
    float weight = 1.0f;                     ///< the request's
  };

  /// Whether the kernels take a low-rank delta: one whose `up` is packed and whose `down`, if any,
  /// is not (LowRankDelta::OnDevice).
  static bool Fits(const LowRankDelta& delta);

  /// Adds the deltas of one product and returns its number. Terms with the same columns, one behind
  /// another, have the same rows or such as come behind all before them. Throws c10::Error when
  /// not.
  size_t Add(std::span<const Term> terms);

  /// The same in a frame, for a product of that many sites, none of them with more columns. There
  /// may be no terms; without `has_low_rank` none has a low-rank part, and x is not read.
  size_t AddFramed(std::span<const Term> terms, int64_t num_sites, int64_t max_columns,
                   bool has_low_rank = true);

  bool empty() const { return products_.empty(); }
  /// Whether the terms are within the frame, if any.
  bool fits() const;

  /// Adds the tables to those of a step on `device`, behind the last Add. Apply comes behind their
  /// upload.
  void Stage(DeviceTables& tables, at::Device device);

  /// What the product's terms make of y [T, out], in place, x [T, in] being its input
  /// (cuda::DeltaCall). Both have the deltas' dtype and are contiguous within a row. Throws
  /// c10::Error on a shape or dtype that does not fit.
  void Apply(size_t product, const at::Tensor& x, const at::Tensor& y) const;

 private:
  struct Product {
    size_t group_begin = 0, group_end = 0;
    size_t tile_begin = 0, tile_end = 0;
    int64_t in_features = 0;              // 0 as long as no term has a low-rank part
    int64_t row_end = 0, column_end = 0;  // behind the last of the groups
    int64_t max_rank = 0, max_columns = 0;
    int64_t shrunk_size = 0;
    at::ScalarType dtype = at::ScalarType::Undefined;  // as long as in_features is 0
  };

  static void CheckTerm(const Term& term, Product& product);
  /// Terms that share rows and columns, cut into groups of rows.
  void AddSegment(std::span<const Term> terms, Product& product);
  /// Tiles of the segment's full groups, whose first has that number, where tensor cores take
  /// them. None in a frame.
  void AddTiles(std::span<const Term> terms, size_t first_group, Product& product);
  int64_t MaxShrunk() const;

  std::vector<Product> products_;
  std::vector<cuda::DeltaTerm> terms_;
  std::vector<cuda::RowGroup> groups_;
  std::vector<cuda::RowTile> tiles_;
  Frame frame_;
  bool is_framed_ = false;
  bool has_overflown_ = false;  // a product has more groups than the frame
  const DeviceTables* tables_ = nullptr;
  DeviceTable<cuda::DeltaTerm> staged_terms_;
  DeviceTable<cuda::RowGroup> staged_groups_;
  DeviceTable<cuda::RowTile> staged_tiles_;
  at::Tensor shrunk_;  // for the largest product; used again by each
};

}  // namespace tenon

#endif  // TENON_ADAPTERS_KERNELS_DELTA_PLAN_H_
