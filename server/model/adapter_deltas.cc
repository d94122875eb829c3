#include "server/model/adapter_deltas.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/linear.h>

#include <algorithm>
#include <utility>

#include "server/model/term_runs.h"

namespace tenon {
namespace {

// The position of `token` in ascending `tokens`, or -1.
int64_t Find(const std::vector<int32_t>& tokens, int64_t token) {
  const auto found = std::lower_bound(tokens.begin(), tokens.end(), token);
  return found != tokens.end() && *found == token ? found - tokens.begin() : -1;
}

// Whether the site is in merged weights: a linear layer of a decoder layer.
bool IsLinear(Site site) { return site <= Site::kDown; }

// hidden[row] = scale * what the adapter has for the token, if anything.
void OverrideEmbedding(const EmbeddingDelta& delta, int64_t token, float scale,
                       const at::Tensor& hidden, int64_t row) {
  if (const int64_t index = Find(delta.tokens, token); index >= 0) {
    hidden.select(0, row).copy_(delta.rows.select(0, index)).mul_(scale);
  } else if (delta.table.defined()) {
    hidden.select(0, row).copy_(delta.table.select(0, token)).mul_(scale);
  }
}

// Whether terms of the same rows are low-rank updates and nothing else.
template <typename Terms>
bool OnlyLowRank(const Terms& terms) {
  return std::all_of(terms.begin(), terms.end(), [](const auto& term) {
    return term.delta->low_rank.packed_up.defined() && !term.delta->output_gain.defined() &&
           !term.delta->offset.defined();
  });
}

}  // namespace

AdapterDeltas::AdapterDeltas(std::span<const AdapterSegment> segments, KernelKind kernels,
                             int64_t rank)
    : kernels_(kernels) {
  for (const AdapterSegment& segment : segments) {
    for (const ResolvedAdapter& resolved : segment.adapters) {
      if (resolved.weight != 0.0f && segment.token_begin < segment.token_end) {
        terms_.push_back({segment.token_begin, segment.token_end, &resolved.adapter->OfRank(rank),
                          resolved.weight, segment.merged != nullptr});
      }
    }
  }
}

auto AdapterDeltas::AffineKernel() const -> decltype(&ApplyAffine) {
  return kernels_ == KernelKind::kCpu ? &ApplyAffine : &ApplyAffineReference;
}

auto AdapterDeltas::LowRankKernel() const -> decltype(&ApplyLowRank) {
  return kernels_ == KernelKind::kCpu ? &ApplyLowRank : &ApplyLowRankReference;
}

std::vector<AdapterDeltas::SiteTerm> AdapterDeltas::TermsAt(int64_t layer, Site site) const {
  std::vector<SiteTerm> terms;
  for (const Term& term : terms_) {
    if (term.merged && IsLinear(site)) {
      continue;
    }
    if (const SiteDelta* delta = term.adapter->delta(layer, site); delta != nullptr) {
      terms.push_back({term.begin, term.end, delta, term.weight});
    }
  }
  return terms;
}

at::Tensor AdapterDeltas::ScaleInput(int64_t layer, Site site, const at::Tensor& x) const {
  if (kernels_ == KernelKind::kCuda) {
    return ScalePlanned(layer, site, x);
  }
  const std::vector<SiteTerm> terms = TermsAt(layer, site);
  at::Tensor scaled = x;
  for (size_t first = 0, last; first < terms.size(); first = last) {
    std::vector<AffinePart> parts;
    for (last = first; last < terms.size() && terms[last].begin == terms[first].begin; ++last) {
      if (terms[last].delta->input_gain.defined()) {
        parts.push_back({terms[last].delta->input_gain, {}, terms[last].weight});
      }
    }
    if (!parts.empty()) {
      scaled = scaled.is_same(x) ? x.clone() : scaled;
      AffineKernel()(terms[first].begin, terms[first].end, parts, scaled);
    }
  }
  return scaled;
}

void AdapterDeltas::ApplySite(std::span<const SiteTerm> terms, const at::Tensor& x,
                              const at::Tensor& y) const {
  std::vector<LowRankTerm> low_rank;
  for (size_t first = 0, last; first < terms.size(); first = last) {
    std::vector<AffinePart> parts;
    for (last = first; last < terms.size() && terms[last].begin == terms[first].begin; ++last) {
      const SiteTerm& term = terms[last];
      if (term.delta->output_gain.defined() || term.delta->offset.defined()) {
        parts.push_back({term.delta->output_gain, term.delta->offset, term.weight});
      }
      if (term.delta->low_rank.defined()) {
        low_rank.push_back({term.begin, term.end, &term.delta->low_rank, term.weight});
      }
    }
    AffineKernel()(terms[first].begin, terms[first].end, parts, y);
  }
  if (!low_rank.empty()) {
    LowRankKernel()(x, low_rank, y);
  }
}

std::vector<LowRankUpdate::Term> AdapterDeltas::TakeFused(std::vector<SiteTerm>& terms,
                                                          int64_t column) const {
  std::vector<LowRankUpdate::Term> fused;
  if (kernels_ == KernelKind::kCpu && LowRankUpdate::Fits(column)) {
    for (const SiteTerm& term : TakeRuns(terms, OnlyLowRank<std::span<const SiteTerm>>)) {
      fused.push_back({{term.begin, term.end, &term.delta->low_rank, term.weight}, column});
    }
  }
  return fused;
}

void AdapterDeltas::AddTo(int64_t layer, std::span<const SiteColumns> sites, const at::Tensor& x,
                          const at::Tensor& y, Multiply multiply) const {
  if (empty()) {
    multiply({});
    return;
  }
  std::vector<LowRankUpdate::Term> fused;
  std::vector<std::vector<SiteTerm>> rest;
  for (const SiteColumns& part : sites) {
    rest.push_back(TermsAt(layer, part.site));
    const std::vector<LowRankUpdate::Term> taken = TakeFused(rest.back(), part.begin);
    fused.insert(fused.end(), taken.begin(), taken.end());
    if (kernels_ == KernelKind::kCuda) {
      TakePlanned(rest.back());  // the plan has them
    }
  }
  const LowRankUpdate update = fused.empty() ? LowRankUpdate() : LowRankUpdate(x, fused);
  multiply(update.updates());
  if (const auto product = planned_.find({layer, sites.front().site}); product != planned_.end()) {
    plan_.Apply(product->second, x, y);
  }
  for (size_t i = 0; i < sites.size(); ++i) {
    if (!rest[i].empty()) {
      ApplySite(rest[i], x, y.narrow(1, sites[i].begin, sites[i].count));
    }
  }
}

void AdapterDeltas::AddOffset(int64_t layer, Site site, const at::Tensor& y) const {
  if (kernels_ == KernelKind::kCuda) {
    if (const auto planned = planned_.find({layer, site}); planned != planned_.end()) {
      plan_.Apply(planned->second, y, y);  // without a low-rank part, which would read x
    }
    return;
  }
  ApplySite(TermsAt(layer, site), y, y);
}

std::vector<BottleneckTerm> AdapterDeltas::BottlenecksAt(int64_t layer, Sublayer sublayer) const {
  std::vector<BottleneckTerm> terms;
  for (const Term& term : terms_) {
    if (const BottleneckDelta* delta = term.adapter->bottleneck(layer, sublayer);
        delta != nullptr) {
      terms.push_back({term.begin, term.end, delta, term.weight});
    }
  }
  return terms;
}

void AdapterDeltas::AddBottleneck(int64_t layer, Sublayer sublayer, const at::Tensor& residual,
                                  const at::Tensor& out) const {
  if (kernels_ == KernelKind::kCuda) {
    const auto planned = planned_bottlenecks_.find({layer, sublayer});
    if (planned != planned_bottlenecks_.end()) {
      bottleneck_plan_.Apply(planned->second, residual, out);
    }
    return;
  }
  const std::vector<BottleneckTerm> terms = BottlenecksAt(layer, sublayer);
  if (!terms.empty()) {
    (kernels_ == KernelKind::kCpu ? &ApplyBottleneck : &ApplyBottleneckReference)(residual, terms,
                                                                                  out);
  }
}

void AdapterDeltas::ReplaceEmbeddings(const at::Tensor& tokens, float scale,
                                      const at::Tensor& hidden) const {
  std::vector<Term> terms;
  for (const Term& term : terms_) {
    if (term.adapter->embedding() != nullptr) {
      terms.push_back(term);
    }
  }
  const int64_t* const ids = tokens.const_data_ptr<int64_t>();
  for (const Term& term : terms) {
    for (int64_t row = term.begin; row < term.end; ++row) {
      OverrideEmbedding(*term.adapter->embedding(), ids[row], scale, hidden, row);
    }
  }
  for (size_t first = 0, last; first < terms.size(); first = last) {
    std::vector<AffinePart> parts;
    for (last = first; last < terms.size() && terms[last].begin == terms[first].begin; ++last) {
      if (const EmbeddingDelta& delta = *terms[last].adapter->embedding();
          delta.output_gain.defined()) {
        parts.push_back({delta.output_gain, {}, terms[last].weight});
      }
    }
    AffineKernel()(terms[first].begin, terms[first].end, parts, hidden);
  }
  for (const Term& term : terms) {
    AddLowRankEmbedding(term, tokens, scale, hidden);
  }
}

void AdapterDeltas::AddLowRankEmbedding(const Term& term, const at::Tensor& tokens, float scale,
                                        const at::Tensor& hidden) const {
  const EmbeddingDelta& delta = *term.adapter->embedding();
  if (!delta.down.defined()) {
    return;
  }
  const int64_t rows = term.end - term.begin;
  const at::Tensor shrunk =
      at::index_select(delta.down, 0, tokens.narrow(0, term.begin, rows).to(delta.down.device()));
  const LowRankTerm up = {0, rows, &delta.up, term.weight * scale};
  LowRankKernel()(shrunk, {&up, 1}, hidden.narrow(0, term.begin, rows));
}

void AdapterDeltas::MultiplyPacked(const PackedMatrix& matrix, const at::Tensor& x,
                                   const at::Tensor& y) const {
  if (kernels_ != KernelKind::kCpu) {
    y.copy_(at::linear(x, matrix.Unpack()));
  } else {
    matrix.Multiply(x, at::Tensor(), y);
  }
}

void AdapterDeltas::OverrideHead(const HeadDelta& head, const at::Tensor& hidden,
                                 const at::Tensor& logits) const {
  if (head.table.defined()) {
    MultiplyPacked(head.table, hidden, logits);
  }
  if (head.rows.defined()) {
    const at::Tensor columns =
        at::empty({hidden.size(0), head.rows.out_features()}, hidden.options());
    MultiplyPacked(head.rows, hidden, columns);
    for (size_t i = 0; i < head.tokens.size(); ++i) {
      logits.select(1, head.tokens[i]).copy_(columns.select(1, static_cast<int64_t>(i)));
    }
  }
}

void AdapterDeltas::AddHead(std::span<const int64_t> token_of_row, const at::Tensor& hidden,
                            const at::Tensor& logits) const {
  std::vector<SiteTerm> sites;
  for (const Term& term : terms_) {
    const HeadDelta* const head = term.adapter->head();
    if (head == nullptr) {
      continue;
    }
    const int64_t begin = std::lower_bound(token_of_row.begin(), token_of_row.end(), term.begin) -
                          token_of_row.begin();
    const int64_t end =
        std::lower_bound(token_of_row.begin(), token_of_row.end(), term.end) - token_of_row.begin();
    if (begin < end) {
      OverrideHead(*head, hidden.narrow(0, begin, end - begin),
                   logits.narrow(0, begin, end - begin));
      sites.push_back({begin, end, &head->site, term.weight});
    }
  }
  ApplySite(sites, hidden, logits);
}

}  // namespace tenon
