// AdapterDeltas: what the adapters of one step add to the forward pass, site by site.
#ifndef TENON_SERVER_MODEL_ADAPTER_DELTAS_H_
#define TENON_SERVER_MODEL_ADAPTER_DELTAS_H_

#include <ATen/core/Tensor.h>

#include <compare>
#include <cstdint>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "adapters/kernels/affine.h"
#include "adapters/kernels/bottleneck_plan.h"
#include "adapters/kernels/delta_plan.h"
#include "adapters/kernels/device_tables.h"
#include "adapters/kernels/low_rank.h"
#include "adapters/methods/compiled_adapter.h"
#include "server/kernels/linear.h"
#include "server/model/model_runner.h"

namespace tenon {

/// A run of tokens of a step and the adapters that apply to them.
struct AdapterSegment {
  int64_t token_begin = 0, token_end = 0;
  std::span<const ResolvedAdapter> adapters;  ///< empty for the bare base
  /// Used for these tokens in place of the base's linear layers, with the adapters' effects on them
  /// inside; null: the base's.
  const MergedWeights* merged = nullptr;
};

/// A site and its columns in the output of the stacked matrix that it is a part of.
struct SiteColumns {
  Site site;
  int64_t begin = 0, count = 0;
};

/// The one place where the decoder meets adapters: called at each site of the forward pass,
/// whatever the architecture. What a merged segment's weights hold already is left out. Rows that
/// no segment covers, and rows of adapters with weight 0, keep their bits; with KernelKind::kCpu a
/// row depends on its own adapters alone, bit for bit. A value of one step; borrows the adapters.
/// Throws c10::Error when LibTorch does.
class AdapterDeltas {
 public:
  /// `rank` of a tensor-parallel model: its part of each adapter.
  AdapterDeltas(std::span<const AdapterSegment> segments, KernelKind kernels, int64_t rank = 0);

  /// For KernelKind::kCuda: adds the tables of what AddTo and AddBottleneck will do in layers
  /// [first_layer, last_layer) to those of a step on `device`, whose upload comes in front of the
  /// first of either. Once. `products` are the sites that each of AddTo's calls for a layer will
  /// name.
  void Plan(int64_t first_layer, int64_t last_layer,
            std::span<const std::vector<SiteColumns>> products, DeviceTables& tables,
            at::Device device);

  /// Of a framed plan: which launches there are beside the base's, in every layer the same.
  struct Launches {
    uint32_t products = 0;   ///< a bit for each of Plan's, then for scaled inputs and for norms
    uint32_t sublayers = 0;  ///< a bit for each Sublayer
    friend auto operator<=>(const Launches&, const Launches&) = default;
  };
  struct Frames {
    DeltaPlan::Frame deltas;
    BottleneckPlan::Frame bottlenecks;
    at::Tensor scaled;   ///< [elements] of the dtype: what ScaleInput returns
    int64_t widest = 0;  ///< columns of an input or a norm at most
    int64_t hidden = 0;  ///< of the residual stream, and its dtype
    at::ScalarType dtype = at::kFloat;
  };
  /// Plan for all layers in frames (DeltaPlan::Frame). Nothing, and no more use, when the adapters
  /// do what a plan does not, or more than the frames hold.
  std::optional<Launches> PlanFramed(int64_t num_layers,
                                     std::span<const std::vector<SiteColumns>> products,
                                     Frames frames, DeviceTables& tables, at::Device device);
  /// What the frames' max_groups have to be at least.
  int64_t num_row_groups() const;

  /// Whether no adapter of the step does anything: the decoder may skip the rest.
  bool empty() const { return terms_.empty(); }

  /// What the linear layer at `site` reads instead of x [T, in]: x itself when no adapter of the
  /// step scales it, else a scaled copy. AddTo is given x. Sites that share their input with
  /// others (q, k, v, gate, up) need no call: the compiler makes another delta of their gain.
  at::Tensor ScaleInput(int64_t layer, Site site, const at::Tensor& x) const;
  /// y [T, out] of a linear layer with input x [T, in], or of several that are stacked: has
  /// `multiply` compute the product, then adds what the sites have for it, gain, offset and
  /// low-rank update. Low-rank updates of rows with nothing else at their site are given to
  /// `multiply`, which adds them on the way (Linear::Forward).
  using Multiply = absl::FunctionRef<void(const ProductUpdates& updates)>;
  void AddTo(int64_t layer, std::span<const SiteColumns> sites, const at::Tensor& x,
             const at::Tensor& y, Multiply multiply) const;
  /// The offset of a norm's output y [T, hidden].
  void AddOffset(int64_t layer, Site site, const at::Tensor& y) const;
  /// out [T, hidden] of a sublayer before it joins the residual stream [T, hidden].
  void AddBottleneck(int64_t layer, Sublayer sublayer, const at::Tensor& residual,
                     const at::Tensor& out) const;
  /// hidden [T, hidden], the embeddings of tokens [T] int64 on the CPU, in place. `scale` is what
  /// the model multiplies its embeddings with.
  void ReplaceEmbeddings(const at::Tensor& tokens, float scale, const at::Tensor& hidden) const;
  /// logits [R, vocab] of hidden states [R, hidden]; row r belongs to token token_of_row[r], which
  /// ascend.
  void AddHead(std::span<const int64_t> token_of_row, const at::Tensor& hidden,
               const at::Tensor& logits) const;

 private:
  /// An adapter with a weight that is not 0, and its rows.
  struct Term {
    int64_t begin, end;
    const CompiledAdapter* adapter;
    float weight;
    bool merged;
  };
  struct SiteTerm {
    int64_t begin, end;
    const SiteDelta* delta;
    float weight;
  };

  auto AffineKernel() const -> decltype(&ApplyAffine);
  auto LowRankKernel() const -> decltype(&ApplyLowRank);
  std::vector<SiteTerm> TermsAt(int64_t layer, Site site) const;
  /// Moves those that can go with a product whose column `column` is the site's first; none but for
  /// kCpu.
  std::vector<LowRankUpdate::Term> TakeFused(std::vector<SiteTerm>& terms, int64_t column) const;
  /// Moves those that can go with a plan.
  static std::vector<SiteTerm> TakePlanned(std::vector<SiteTerm>& terms);
  /// Those of all sites of a product, and whether they are all that these have.
  struct PlannedProduct {
    std::vector<DeltaPlan::Term> terms;
    bool is_whole = true;
  };
  PlannedProduct PlannedAtSites(int64_t layer, std::span<const SiteColumns> sites) const;
  /// The gains of a linear layer's input; what there is for a norm's output.
  std::vector<DeltaPlan::Term> PlannedInput(int64_t layer, Site site) const;
  std::vector<DeltaPlan::Term> PlannedNorm(int64_t layer, Site site) const;
  /// ScaleInput, as planned.
  at::Tensor ScalePlanned(int64_t layer, Site site, const at::Tensor& x) const;

  using PlannedAt = absl::flat_hash_map<std::pair<int64_t, Site>, size_t>;
  /// Something of every layer that a frame has products for.
  struct Place {
    uint32_t bit;  ///< of Launches::products
    Site site;
    PlannedAt* planned;
    int64_t num_sites, max_columns;
    bool has_low_rank;
    absl::FunctionRef<std::optional<std::vector<DeltaPlan::Term>>(int64_t layer)> terms;
  };
  /// Adds the products of all layers, if one has terms. False when a plan does not hold them.
  bool FramePlace(const Place& place, int64_t num_layers);
  bool FrameProducts(int64_t num_layers, std::span<const std::vector<SiteColumns>> products,
                     int64_t widest);
  void FrameBottlenecks(int64_t num_layers, const Frames& frames);
  void StagePlans(DeviceTables& tables, at::Device device);
  std::vector<BottleneckTerm> BottlenecksAt(int64_t layer, Sublayer sublayer) const;
  void ApplySite(std::span<const SiteTerm> terms, const at::Tensor& x, const at::Tensor& y) const;
  void AddLowRankEmbedding(const Term& term, const at::Tensor& tokens, float scale,
                           const at::Tensor& hidden) const;
  void OverrideHead(const HeadDelta& head, const at::Tensor& hidden,
                    const at::Tensor& logits) const;
  void MultiplyPacked(const PackedMatrix& matrix, const at::Tensor& x, const at::Tensor& y) const;

  std::vector<Term> terms_;
  DeltaPlan plan_;
  /// The plan's product at a layer and the first of its sites, or a norm; and of an input.
  PlannedAt planned_, planned_inputs_;
  at::Tensor scaled_;  // Frames::scaled
  Launches launches_;
  BottleneckPlan bottleneck_plan_;
  absl::flat_hash_map<std::pair<int64_t, Sublayer>, size_t> planned_bottlenecks_;
  KernelKind kernels_;
};

}  // namespace tenon

#endif  // TENON_SERVER_MODEL_ADAPTER_DELTAS_H_
