#include "adapters/methods/adapter_cut.h"

#include <ATen/ops/cat.h>

#include <utility>
#include <vector>

#include "adapters/base/status_macros.h"
#include "adapters/methods/rank_share.h"

namespace tenon {
namespace {

// Whether a site's matrix is cut along its inputs, and a site's along its outputs; norms, the
// embedding and the head are neither.
bool CutsInputs(Site site) { return site == Site::kO || site == Site::kDown; }
bool CutsOutputs(Site site) { return site <= Site::kDown && !CutsInputs(site); }

// One rank's part of an adapter.
class RankCut {
 public:
  RankCut(const BaseShape& base, int64_t rank) : base_(base), rank_(rank) {}

  absl::StatusOr<std::shared_ptr<CompiledAdapter>> Cut(const CompiledAdapter& whole) const {
    auto part = std::make_shared<CompiledAdapter>(base_.num_layers);
    for (int64_t layer = 0; layer < base_.num_layers; ++layer) {
      for (int site = 0; site < kNumSites; ++site) {
        const SiteDelta* const delta = whole.delta(layer, static_cast<Site>(site));
        if (delta != nullptr) {
          TENON_ASSIGN_OR_RETURN(SiteDelta cut, CutSite(static_cast<Site>(site), *delta));
          part->set_delta(layer, static_cast<Site>(site), std::move(cut));
        }
      }
      for (const Sublayer sublayer : {Sublayer::kAttention, Sublayer::kFeedForward}) {
        if (const BottleneckDelta* delta = whole.bottleneck(layer, sublayer); delta != nullptr) {
          part->set_bottleneck(layer, sublayer, *delta);
        }
      }
    }
    if (whole.embedding() != nullptr) {
      part->set_embedding(*whole.embedding());
    }
    if (whole.head() != nullptr) {
      part->set_head(*whole.head());
    }
    if (whole.context() != nullptr) {
      part->set_context(CutContext(*whole.context()));
    }
    part->Compact();
    return part;
  }

 private:
  // That run of dimension `dim`, contiguous; undefined stays undefined.
  static at::Tensor Run(const at::Tensor& tensor, int64_t dim, RankShare share) {
    return tensor.defined() ? tensor.narrow(dim, share.begin, share.count).contiguous() : tensor;
  }
  // This rank's share of dimension `dim`.
  at::Tensor Part(const at::Tensor& tensor, int64_t dim) const {
    return tensor.defined() ? Run(tensor, dim, ShareOf(tensor.size(dim), rank_, base_.num_ranks))
                            : tensor;
  }
  RankShare KvHeads() const { return KvShareOf(base_.num_kv_heads, rank_, base_.num_ranks); }
  // The same of keys or values, dimension 0, whatever else it has.
  at::Tensor KvPart(const at::Tensor& tensor) const {
    return Run(tensor, 0, {KvHeads().begin * base_.head_dim, KvHeads().count * base_.head_dim});
  }

  // The same of a site's outputs, dimension 0. A fused query, key and value is cut in each of the
  // three.
  at::Tensor Outputs(Site site, const at::Tensor& tensor) const {
    if (site == Site::kK || site == Site::kV) {
      return KvPart(tensor);
    }
    if (site != Site::kQkv || !tensor.defined()) {
      return Part(tensor, 0);
    }
    const int64_t kv = base_.num_kv_heads * base_.head_dim, q = tensor.size(0) - 2 * kv;
    return at::cat({Part(tensor.narrow(0, 0, q), 0), KvPart(tensor.narrow(0, q, kv)),
                    KvPart(tensor.narrow(0, q + kv, kv))});
  }

  absl::StatusOr<LowRankDelta> CutLowRank(Site site, const LowRankDelta& delta) const {
    if (!delta.defined()) {
      return delta;
    }
    if (CutsOutputs(site)) {
      LowRankDelta cut = delta;  // with the same `down`
      cut.up = at::Tensor();
      const at::Tensor up = Outputs(site, delta.UpMatrix());
      TENON_ASSIGN_OR_RETURN(cut.packed_up, PackedMatrix::Pack({&up, 1}));
      return cut;
    }
    if (delta.dense()) {
      return LowRankDelta::CreateDense(Part(delta.UpMatrix(), 1), delta.scaling);
    }
    TENON_ASSIGN_OR_RETURN(LowRankDelta cut, LowRankDelta::Create(Part(delta.DownMatrix(), 1),
                                                                  delta.UpMatrix(), delta.scaling));
    cut.packed_up = delta.packed_up;
    return cut;
  }

  absl::StatusOr<SiteDelta> CutSite(Site site, const SiteDelta& delta) const {
    SiteDelta cut = delta;
    if (CutsOutputs(site)) {
      cut.output_gain = Outputs(site, delta.output_gain);
      cut.offset = Outputs(site, delta.offset);
    } else if (CutsInputs(site)) {
      cut.input_gain = Part(delta.input_gain, 0);
      cut.offset = rank_ == 0 ? delta.offset : at::Tensor();
    } else {
      return cut;
    }
    TENON_ASSIGN_OR_RETURN(cut.low_rank, CutLowRank(site, delta.low_rank));
    return cut;
  }

  AdapterContext CutContext(const AdapterContext& context) const {
    constexpr int64_t kHeads = 2;  // the dimension of keys and values
    return {context.num_tokens, context.embeddings, Run(context.keys, kHeads, KvHeads()),
            Run(context.values, kHeads, KvHeads())};
  }

  const BaseShape& base_;
  const int64_t rank_;
};

}  // namespace

absl::StatusOr<std::shared_ptr<const CompiledAdapter>> CutAdapter(const CompiledAdapter& whole,
                                                                  const BaseShape& base) {
  TENON_ASSIGN_OR_RETURN(const std::shared_ptr<CompiledAdapter> first, RankCut(base, 0).Cut(whole));
  std::vector<std::shared_ptr<const CompiledAdapter>> others;
  for (int64_t rank = 1; rank < base.num_ranks; ++rank) {
    TENON_ASSIGN_OR_RETURN(auto part, RankCut(base, rank).Cut(whole));
    others.push_back(std::move(part));
  }
  first->set_other_ranks(std::move(others));
  return first;
}

}  // namespace tenon
