#include "adapters/kernels/bottleneck_plan.h"

#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include <algorithm>

#include "adapters/kernels/kernel_call.h"
#include "adapters/kernels/row_groups.h"

namespace tenon {
namespace {

// What a framed launch is sized for; the kernel takes wider modules in several turns.
constexpr int64_t kFramedWidth = 256;

const float* Vector(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.const_data_ptr<float>() : nullptr;
}

cuda::AffineNorm NormOf(const LayerNormWeights& norm) {
  return {Vector(norm.weight), Vector(norm.bias)};
}

cuda::BottleneckEntry Entry(const BottleneckTerm& term, int64_t rows_begin, int64_t inner_begin) {
  const BottleneckDelta& module = *term.delta;
  cuda::BottleneckEntry entry{};
  entry.down = module.down.panels().const_data_ptr();
  entry.up = module.up.panels().const_data_ptr();
  entry.down_stride = module.down.panel_stride();
  entry.up_stride = module.up.panel_stride();
  entry.down_bias = Vector(module.down_bias);
  entry.up_bias = Vector(module.up_bias);
  entry.scale = Vector(module.scale);
  entry.input_norm = Vector(module.input_norm);
  entry.input_norm_eps = module.input_norm_eps;
  entry.norm_before = NormOf(module.norm_before);
  entry.norm_after = NormOf(module.norm_after);
  entry.function = static_cast<cuda::BottleneckFunction>(module.activation);
  entry.source = static_cast<cuda::BottleneckSource>(module.input);
  entry.skip = static_cast<cuda::BottleneckSkip>(module.residual);
  entry.adds_residual_before_norm = module.adds_residual_before_norm;
  entry.drops_stream = module.drops_stream;
  entry.width = static_cast<int32_t>(module.width());
  entry.weight = term.weight;
  entry.rows_begin = rows_begin;
  entry.inner_begin = inner_begin;
  return entry;
}

void CheckRows(const at::Tensor& tensor, const char* name, int64_t rows, int64_t hidden,
               at::ScalarType dtype) {
  TORCH_CHECK(tensor.dim() == 2 && tensor.size(0) >= rows && tensor.size(1) == hidden &&
                  tensor.scalar_type() == dtype && (tensor.stride(1) == 1 || hidden == 1),
              "bottleneck: ", name, " is ", tensor.scalar_type(), " ", tensor.sizes(), ", want ",
              dtype, " of ", rows, " rows and ", hidden, " columns");
}

}  // namespace

void BottleneckPlan::CheckModule(const BottleneckDelta& module, Sublayer& sublayer) {
  if (sublayer.hidden == 0) {
    sublayer.hidden = module.down.in_features();
    sublayer.dtype = module.down.dtype();
  }
  CheckBottleneck(module, sublayer.hidden, sublayer.dtype);
}

void BottleneckPlan::AddSegment(std::span<const BottleneckTerm> terms, Sublayer& sublayer) {
  const BottleneckTerm& first = terms.front();
  ForEachRowGroup(first.begin, first.end, [&](cuda::RowGroup group) {
    group.term_begin = static_cast<int32_t>(entries_.size());
    for (const BottleneckTerm& term : terms) {
      entries_.push_back(Entry(term, sublayer.num_rows * sublayer.hidden, sublayer.inner_size));
      sublayer.num_rows += group.num_rows;
      sublayer.inner_size += group.num_rows * term.delta->width();
      sublayer.max_width = std::max(sublayer.max_width, term.delta->width());
    }
    group.term_end = static_cast<int32_t>(entries_.size());
    sublayer.max_rows = std::max<int64_t>(sublayer.max_rows, group.num_rows);
    groups_.push_back(group);
  });
  sublayer.row_end = std::max(sublayer.row_end, first.end);
}

size_t BottleneckPlan::Add(std::span<const BottleneckTerm> terms) {
  Sublayer sublayer;
  sublayer.group_begin = groups_.size();
  for (size_t first = 0, last; first < terms.size(); first = last) {
    const int64_t begin = terms[first].begin, end = terms[first].end;
    TORCH_CHECK(begin >= (first == 0 ? 0 : terms[first - 1].end) && begin <= end,
                "bottleneck: rows ", begin, " to ", end, " behind others");
    for (last = first; last < terms.size() && terms[last].begin == begin && terms[last].end == end;
         ++last) {
      CheckModule(*terms[last].delta, sublayer);
    }
    AddSegment(terms.subspan(first, last - first), sublayer);
  }
  sublayer.group_end = groups_.size();
  sublayers_.push_back(sublayer);
  return sublayers_.size() - 1;
}

size_t BottleneckPlan::AddFramed(std::span<const BottleneckTerm> terms, int64_t hidden,
                                 at::ScalarType dtype) {
  const size_t index = Add(terms);
  Sublayer& sublayer = sublayers_[index];
  sublayer.hidden = hidden;
  sublayer.dtype = dtype;
  sublayer.max_rows = cuda::kGroupRows;
  sublayer.max_width = kFramedWidth;
  has_overflown_ =
      !PadRowGroups(groups_, sublayer.group_begin, frame_.max_groups) || has_overflown_;
  sublayer.group_end = groups_.size();
  return index;
}

std::pair<int64_t, int64_t> BottleneckPlan::ScratchSizes() const {
  int64_t rows = 0, inner = 0;
  for (const Sublayer& sublayer : sublayers_) {
    rows = std::max(rows, sublayer.num_rows * sublayer.hidden);
    inner = std::max(inner, sublayer.inner_size);
  }
  return {rows, inner};
}

bool BottleneckPlan::fits() const {
  const auto [rows, inner] = ScratchSizes();
  return !is_framed_ || (!has_overflown_ && std::ssize(entries_) <= frame_.max_terms &&
                         rows <= frame_.inputs.numel() && inner <= frame_.inner.numel());
}

void BottleneckPlan::Stage(DeviceTables& tables, at::Device device) {
  tables_ = &tables;
  staged_groups_ = tables.Add<cuda::RowGroup>(groups_);
  staged_entries_ =
      tables.Add<cuda::BottleneckEntry>(entries_, static_cast<size_t>(frame_.max_terms));
  if (!is_framed_) {
    const auto [rows, inner] = ScratchSizes();
    const auto options = at::TensorOptions(at::kFloat).device(device);
    frame_.inputs = at::empty({rows}, options);
    frame_.values = at::empty({rows}, options);
    frame_.inner = at::empty({inner}, options);
  }
}

void BottleneckPlan::Apply(size_t sublayer, const at::Tensor& residual,
                           const at::Tensor& out) const {
  const Sublayer& one = sublayers_[sublayer];
  CheckRows(residual, "residual", one.row_end, one.hidden, one.dtype);
  CheckRows(out, "out", one.row_end, one.hidden, one.dtype);
  cuda::BottleneckCall call{};
  call.type = ElementTypeOf(one.dtype, "bottleneck");
  call.hidden = static_cast<int32_t>(one.hidden);
  call.residual = residual.const_data_ptr();
  call.residual_stride = residual.stride(0);
  call.out = out.mutable_data_ptr();
  call.out_stride = out.stride(0);
  call.entries = tables_->Data(staged_entries_);
  call.groups = tables_->Data(staged_groups_) + one.group_begin;
  call.num_groups = static_cast<int32_t>(one.group_end - one.group_begin);
  call.max_rows = static_cast<int32_t>(one.max_rows);
  call.max_width = static_cast<int32_t>(one.max_width);
  call.inputs = frame_.inputs.mutable_data_ptr<float>();
  call.values = frame_.values.mutable_data_ptr<float>();
  call.inner = frame_.inner.mutable_data_ptr<float>();
  RunKernel(AdapterKernels().apply_bottlenecks, call, out.device(), "bottleneck");
}

}  // namespace tenon
