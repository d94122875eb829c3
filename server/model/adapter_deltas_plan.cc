// AdapterDeltas: the tables of a step's adapters for the device's kernels.
#include <ATen/ops/empty_like.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "adapters/kernels/row_groups.h"
#include "server/model/adapter_deltas.h"
#include "server/model/term_runs.h"

namespace tenon {
namespace {

constexpr Sublayer kSublayers[] = {Sublayer::kAttention, Sublayer::kFeedForward};
// Linear layers whose input may have a gain of its own, and the norms of a layer.
constexpr Site kInputSites[] = {Site::kO, Site::kDown};
constexpr Site kNormSites[] = {Site::kAttentionNorm, Site::kFeedForwardNorm};

// Whether the kernels of a DeltaPlan take terms of the same rows.
template <typename Terms>
bool FitPlan(const Terms& terms) {
  return std::all_of(terms.begin(), terms.end(), [](const auto& term) {
    const LowRankDelta& low_rank = term.delta->low_rank;
    return !low_rank.defined() || DeltaPlan::Fits(low_rank);
  });
}

}  // namespace

std::vector<AdapterDeltas::SiteTerm> AdapterDeltas::TakePlanned(std::vector<SiteTerm>& terms) {
  return TakeRuns(terms, FitPlan<std::span<const SiteTerm>>);
}

AdapterDeltas::PlannedProduct AdapterDeltas::PlannedAtSites(
    int64_t layer, std::span<const SiteColumns> sites) const {
  PlannedProduct product;
  for (const SiteColumns& site : sites) {
    std::vector<SiteTerm> terms = TermsAt(layer, site.site);
    for (const SiteTerm& term : TakePlanned(terms)) {
      const SiteDelta& delta = *term.delta;
      product.terms.push_back({term.begin, term.end, site.begin, site.count,
                               delta.low_rank.defined() ? &delta.low_rank : nullptr,
                               delta.output_gain, delta.offset, term.weight});
    }
    product.is_whole = product.is_whole && terms.empty();
  }
  return product;
}

std::vector<DeltaPlan::Term> AdapterDeltas::PlannedInput(int64_t layer, Site site) const {
  std::vector<DeltaPlan::Term> planned;
  for (const SiteTerm& term : TermsAt(layer, site)) {
    if (const at::Tensor& gain = term.delta->input_gain; gain.defined()) {
      planned.push_back({term.begin, term.end, 0, gain.size(0), nullptr, gain, {}, term.weight});
    }
  }
  return planned;
}

std::vector<DeltaPlan::Term> AdapterDeltas::PlannedNorm(int64_t layer, Site site) const {
  std::vector<DeltaPlan::Term> planned;
  for (const SiteTerm& term : TermsAt(layer, site)) {
    const at::Tensor &gain = term.delta->output_gain, &offset = term.delta->offset;
    if (gain.defined() || offset.defined()) {
      const int64_t columns = gain.defined() ? gain.size(0) : offset.size(0);
      planned.push_back({term.begin, term.end, 0, columns, nullptr, gain, offset, term.weight});
    }
  }
  return planned;
}

void AdapterDeltas::Plan(int64_t first_layer, int64_t last_layer,
                         std::span<const std::vector<SiteColumns>> products, DeviceTables& tables,
                         at::Device device) {
  const auto add = [this](const std::vector<DeltaPlan::Term>& terms, auto& planned, int64_t layer,
                          Site site) {
    if (!terms.empty()) {
      planned[{layer, site}] = plan_.Add(terms);
    }
  };
  for (int64_t layer = first_layer; layer < last_layer; ++layer) {
    for (const std::vector<SiteColumns>& sites : products) {
      add(PlannedAtSites(layer, sites).terms, planned_, layer, sites.front().site);
    }
    for (const Site site : kInputSites) {
      add(PlannedInput(layer, site), planned_inputs_, layer, site);
    }
    for (const Site site : kNormSites) {
      add(PlannedNorm(layer, site), planned_, layer, site);
    }
    for (const Sublayer sublayer : kSublayers) {
      if (const std::vector<BottleneckTerm> terms = BottlenecksAt(layer, sublayer);
          !terms.empty()) {
        planned_bottlenecks_[{layer, sublayer}] = bottleneck_plan_.Add(terms);
      }
    }
  }
  add(PlannedNorm(0, Site::kFinalNorm), planned_, 0, Site::kFinalNorm);
  StagePlans(tables, device);
}

void AdapterDeltas::StagePlans(DeviceTables& tables, at::Device device) {
  if (!plan_.empty()) {
    plan_.Stage(tables, device);
  }
  if (!bottleneck_plan_.empty()) {
    bottleneck_plan_.Stage(tables, device);
  }
}

int64_t AdapterDeltas::num_row_groups() const {
  int64_t count = 0, end = -1;
  for (const Term& term : terms_) {
    if (term.begin >= end) {  // else another adapter of the same rows
      ForEachRowGroup(term.begin, term.end, [&count](const cuda::RowGroup&) { ++count; });
      end = term.end;
    }
  }
  return count;
}

at::Tensor AdapterDeltas::ScalePlanned(int64_t layer, Site site, const at::Tensor& x) const {
  const auto planned = planned_inputs_.find({layer, site});
  if (planned == planned_inputs_.end()) {
    return x;
  }
  const at::Tensor scaled =
      scaled_.defined() ? scaled_.narrow(0, 0, x.numel()).view(x.sizes()) : at::empty_like(x);
  scaled.copy_(x);
  plan_.Apply(planned->second, scaled, scaled);  // gains alone
  return scaled;
}

bool AdapterDeltas::FramePlace(const Place& place, int64_t num_layers) {
  std::vector<std::vector<DeltaPlan::Term>> terms;  // by layer
  bool is_used = false;
  for (int64_t layer = 0; layer < num_layers; ++layer) {
    std::optional<std::vector<DeltaPlan::Term>> planned = place.terms(layer);
    if (!planned.has_value()) {
      return false;
    }
    is_used = is_used || !planned->empty();
    terms.push_back(*std::move(planned));
  }
  for (int64_t layer = 0; layer < num_layers && is_used; ++layer) {
    (*place.planned)[{layer, place.site}] = plan_.AddFramed(
        terms[static_cast<size_t>(layer)], place.num_sites, place.max_columns, place.has_low_rank);
  }
  launches_.products |= is_used ? 1u << place.bit : 0u;
  return true;
}

bool AdapterDeltas::FrameProducts(int64_t num_layers,
                                  std::span<const std::vector<SiteColumns>> products,
                                  int64_t widest) {
  uint32_t bit = 0;
  for (const std::vector<SiteColumns>& sites : products) {
    int64_t columns = 0;
    for (const SiteColumns& part : sites) {
      columns = std::max(columns, part.count);
    }
    const auto terms = [&](int64_t layer) {
      PlannedProduct product = PlannedAtSites(layer, sites);
      return product.is_whole ? std::optional(std::move(product.terms)) : std::nullopt;
    };
    if (!FramePlace({bit++, sites.front().site, &planned_, std::ssize(sites), columns,
                     /*has_low_rank=*/true, terms},
                    num_layers)) {
      return false;
    }
  }
  // Of these there are terms without a low-rank part alone.
  for (const Site site : kInputSites) {
    const auto terms = [&](int64_t layer) { return std::optional(PlannedInput(layer, site)); };
    FramePlace({bit++, site, &planned_inputs_, 1, widest, false, terms}, num_layers);
  }
  for (const Site site : kNormSites) {
    const auto terms = [&](int64_t layer) { return std::optional(PlannedNorm(layer, site)); };
    FramePlace({bit++, site, &planned_, 1, widest, false, terms}, num_layers);
  }
  const auto final_norm = [&](int64_t) { return std::optional(PlannedNorm(0, Site::kFinalNorm)); };
  FramePlace({bit, Site::kFinalNorm, &planned_, 1, widest, false, final_norm}, 1);
  return true;
}

void AdapterDeltas::FrameBottlenecks(int64_t num_layers, const Frames& frames) {
  for (size_t i = 0; i < std::size(kSublayers); ++i) {
    std::vector<std::vector<BottleneckTerm>> terms;  // by layer
    bool is_used = false;
    for (int64_t layer = 0; layer < num_layers; ++layer) {
      terms.push_back(BottlenecksAt(layer, kSublayers[i]));
      is_used = is_used || !terms.back().empty();
    }
    for (int64_t layer = 0; layer < num_layers && is_used; ++layer) {
      planned_bottlenecks_[{layer, kSublayers[i]}] = bottleneck_plan_.AddFramed(
          terms[static_cast<size_t>(layer)], frames.hidden, frames.dtype);
    }
    launches_.sublayers |= is_used ? 1u << i : 0u;
  }
}

std::optional<AdapterDeltas::Launches> AdapterDeltas::PlanFramed(
    int64_t num_layers, std::span<const std::vector<SiteColumns>> products, Frames frames,
    DeviceTables& tables, at::Device device) {
  const auto has_more = [](const Term& term) {
    return term.merged || term.adapter->embedding() != nullptr || term.adapter->head() != nullptr;
  };
  if (std::any_of(terms_.begin(), terms_.end(), has_more)) {
    return std::nullopt;
  }
  plan_ = DeltaPlan(frames.deltas);
  bottleneck_plan_ = BottleneckPlan(frames.bottlenecks);
  scaled_ = frames.scaled;
  if (!FrameProducts(num_layers, products, frames.widest)) {
    return std::nullopt;
  }
  FrameBottlenecks(num_layers, frames);
  if (!plan_.fits() || !bottleneck_plan_.fits()) {
    return std::nullopt;
  }
  StagePlans(tables, device);
  return launches_;
}

}  // namespace tenon
