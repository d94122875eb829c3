#include "adapters/kernels/delta_plan.h"

#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include <algorithm>

#include "adapters/kernels/kernel_call.h"
#include "adapters/kernels/row_groups.h"

namespace tenon {
namespace {

// What a framed launch is sized for; the kernel takes larger ranks in several turns.
constexpr int64_t kFramedRank = 64;

bool FitsTiles(const at::Tensor& x) {
  return reinterpret_cast<uintptr_t>(x.const_data_ptr()) % 32 == 0 &&
         x.stride(0) % cuda::kMatrixEdge == 0;
}

bool SameRows(const DeltaPlan::Term& a, const DeltaPlan::Term& b) {
  return a.begin == b.begin && a.end == b.end && a.column == b.column;
}

const float* Vector(const at::Tensor& tensor, int64_t size) {
  if (!tensor.defined()) {
    return nullptr;
  }
  TORCH_CHECK(tensor.dim() == 1 && tensor.size(0) == size && tensor.scalar_type() == at::kFloat &&
                  tensor.is_contiguous(),
              "deltas: a gain or offset is ", tensor.scalar_type(), " ", tensor.sizes(),
              ", want fp32 [", size, "]");
  return tensor.const_data_ptr<float>();
}

void CheckRows(const at::Tensor& tensor, const char* name, int64_t rows, int64_t columns) {
  TORCH_CHECK(tensor.dim() == 2 && tensor.size(0) >= rows && tensor.size(1) >= columns &&
                  (tensor.scalar_type() == at::kFloat || tensor.scalar_type() == at::kBFloat16) &&
                  (tensor.stride(1) == 1 || tensor.size(1) == 1),
              "deltas: ", name, " is ", tensor.scalar_type(), " ", tensor.sizes(),
              ", want fp32 or bf16 of ", rows, " rows and ", columns, " columns");
}

// The entry of a term for num_rows rows.
cuda::DeltaTerm Entry(const DeltaPlan::Term& term, int64_t shrunk_begin) {
  cuda::DeltaTerm entry{};
  entry.gain = Vector(term.gain, term.num_columns);
  entry.offset = Vector(term.offset, term.num_columns);
  entry.weight = term.weight;
  if (term.low_rank != nullptr) {
    entry.down = term.low_rank->dense() ? nullptr : term.low_rank->down.const_data_ptr();
    entry.up = term.low_rank->packed_up.panels().const_data_ptr();
    entry.panel_stride = term.low_rank->packed_up.panel_stride();
    entry.shrunk_begin = shrunk_begin;
    entry.rank = static_cast<int32_t>(term.low_rank->rank());
    entry.scale = term.weight * term.low_rank->scaling;
  }
  return entry;
}

}  // namespace

bool DeltaPlan::Fits(const LowRankDelta& delta) {
  return delta.packed_up.defined() && !delta.down_pairs.defined();
}

void DeltaPlan::CheckTerm(const Term& term, Product& product) {
  TORCH_CHECK(0 <= term.begin && term.begin <= term.end && term.column >= 0, "deltas: rows ",
              term.begin, " to ", term.end, " from column ", term.column);
  if (term.low_rank == nullptr) {
    return;
  }
  const LowRankDelta& delta = *term.low_rank;
  product.in_features = product.in_features > 0 ? product.in_features : delta.in_features();
  product.dtype = product.dtype == at::ScalarType::Undefined ? delta.dtype() : product.dtype;
  TORCH_CHECK(Fits(delta) && delta.in_features() == product.in_features &&
                  delta.dtype() == product.dtype && delta.out_features() == term.num_columns,
              "deltas: a low-rank delta of ", delta.in_features(), " inputs and ",
              delta.out_features(), " outputs in ", delta.dtype(), " among such of ",
              product.in_features, " inputs and ", term.num_columns, " outputs in ", product.dtype);
}

void DeltaPlan::AddTiles(std::span<const Term> terms, size_t first_group, Product& product) {
  const auto suits = [](const Term& term) {
    return term.low_rank == nullptr || !term.low_rank->dense();
  };
  if (is_framed_ || product.dtype != at::kBFloat16 ||
      product.in_features % cuda::kMatrixEdge != 0 ||
      !std::all_of(terms.begin(), terms.end(), suits)) {
    return;
  }
  const size_t full =
      static_cast<size_t>(terms.front().end - terms.front().begin) / cuda::kGroupRows / 2 * 2;
  for (size_t begin = 0; begin < full; begin += cuda::kTileGroups) {
    const size_t count = std::min<size_t>(cuda::kTileGroups, full - begin);
    tiles_.push_back({static_cast<int32_t>(first_group + begin - product.group_begin),
                      static_cast<int32_t>(count)});
    for (size_t i = 0; i < count; ++i) {
      groups_[first_group + begin + i].is_tiled = true;
    }
  }
}

void DeltaPlan::AddSegment(std::span<const Term> terms, Product& product) {
  const Term& first = terms.front();
  const size_t first_group = groups_.size();
  ForEachRowGroup(first.begin, first.end, [&](cuda::RowGroup group) {
    group.column_begin = static_cast<int32_t>(first.column);
    group.num_columns = static_cast<int32_t>(first.num_columns);
    group.term_begin = static_cast<int32_t>(terms_.size());
    for (const Term& term : terms) {
      terms_.push_back(Entry(term, product.shrunk_size));
      product.shrunk_size += group.num_rows * terms_.back().rank;
      if (term.low_rank != nullptr) {
        product.max_rank =
            std::max<int64_t>(product.max_rank, term.low_rank->dense() ? 1 : terms_.back().rank);
      }
    }
    group.term_end = static_cast<int32_t>(terms_.size());
    groups_.push_back(group);
  });
  AddTiles(terms, first_group, product);
  product.row_end = std::max(product.row_end, first.end);
  product.column_end = std::max(product.column_end, first.column + first.num_columns);
  product.max_columns = std::max(product.max_columns, first.num_columns);
}

size_t DeltaPlan::Add(std::span<const Term> terms) {
  Product product;
  product.group_begin = groups_.size();
  product.tile_begin = tiles_.size();
  for (size_t first = 0, last; first < terms.size(); first = last) {
    for (last = first; last < terms.size() && SameRows(terms[first], terms[last]); ++last) {
      CheckTerm(terms[last], product);
      TORCH_CHECK(terms[last].num_columns == terms[first].num_columns,
                  "deltas: terms of one site have ", terms[first].num_columns, " and ",
                  terms[last].num_columns, " columns");
    }
    TORCH_CHECK(first == 0 || terms[first].column != terms[first - 1].column ||
                    terms[first].begin >= terms[first - 1].end,
                "deltas: segments of one site overlap");
    AddSegment(terms.subspan(first, last - first), product);
  }
  product.group_end = groups_.size();
  product.tile_end = tiles_.size();
  products_.push_back(product);
  return products_.size() - 1;
}

size_t DeltaPlan::AddFramed(std::span<const Term> terms, int64_t num_sites, int64_t max_columns,
                            bool has_low_rank) {
  const size_t index = Add(terms);
  Product& product = products_[index];
  product.max_rank = has_low_rank ? kFramedRank : 0;
  product.max_columns = max_columns;
  has_overflown_ =
      !PadRowGroups(groups_, product.group_begin, num_sites * frame_.max_groups) || has_overflown_;
  product.group_end = groups_.size();
  return index;
}

int64_t DeltaPlan::MaxShrunk() const {
  int64_t largest = 0;
  for (const Product& product : products_) {
    largest = std::max(largest, product.shrunk_size);
  }
  return largest;
}

bool DeltaPlan::fits() const {
  return !is_framed_ || (!has_overflown_ && std::ssize(terms_) <= frame_.max_terms &&
                         MaxShrunk() <= frame_.scratch.numel());
}

void DeltaPlan::Stage(DeviceTables& tables, at::Device device) {
  tables_ = &tables;
  staged_groups_ = tables.Add<cuda::RowGroup>(groups_);
  staged_tiles_ = tables.Add<cuda::RowTile>(tiles_);
  staged_terms_ = tables.Add<cuda::DeltaTerm>(terms_, static_cast<size_t>(frame_.max_terms));
  shrunk_ = is_framed_ ? frame_.scratch
                       : at::empty({MaxShrunk()}, at::TensorOptions(at::kFloat).device(device));
}

void DeltaPlan::Apply(size_t product, const at::Tensor& x, const at::Tensor& y) const {
  const Product& one = products_[product];
  CheckRows(x, "x", one.row_end, one.in_features);
  CheckRows(y, "y", one.row_end, one.column_end);
  TORCH_CHECK(
      x.scalar_type() == y.scalar_type() &&
          (one.in_features == 0 || (one.dtype == x.scalar_type() && one.in_features == x.size(1))),
      "deltas: x is ", x.scalar_type(), " ", x.sizes(), ", y is ", y.scalar_type(),
      ", the deltas are ", one.dtype, " of ", one.in_features, " inputs");
  const size_t num_tiles = one.tile_end - one.tile_begin;
  TORCH_CHECK(num_tiles == 0 || FitsTiles(x), "deltas: x ", x.sizes(), " with strides ",
              x.strides(), " is not aligned");
  cuda::DeltaCall call{};
  call.type = ElementTypeOf(x.scalar_type(), "deltas");
  call.in_features = static_cast<int32_t>(x.size(1));
  call.x = x.const_data_ptr();
  call.x_stride = x.stride(0);
  call.y = y.mutable_data_ptr();
  call.y_stride = y.stride(0);
  call.terms = tables_->Data(staged_terms_);
  call.groups = tables_->Data(staged_groups_) + one.group_begin;
  call.num_groups = static_cast<int32_t>(one.group_end - one.group_begin);
  call.tiles = tables_->Data(staged_tiles_) + one.tile_begin;
  call.num_tiles = static_cast<int32_t>(num_tiles);
  call.max_rank = static_cast<int32_t>(one.max_rank);
  call.max_columns = static_cast<int32_t>(one.max_columns);
  call.shrunk = shrunk_.mutable_data_ptr<float>();
  RunKernel(AdapterKernels().apply_deltas, call, x.device(), "deltas");
}

}  // namespace tenon
