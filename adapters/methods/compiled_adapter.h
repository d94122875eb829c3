// CompiledAdapter: an adapter fitted to this base model. Everything below the compiler sees this
// and no method names.
#ifndef TENON_ADAPTERS_METHODS_COMPILED_ADAPTER_H_
#define TENON_ADAPTERS_METHODS_COMPILED_ADAPTER_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "adapters/formats/adapter_spec.h"
#include "adapters/kernels/bottleneck.h"
#include "adapters/kernels/low_rank.h"
#include "adapters/methods/base_shape.h"

namespace tenon {

/// What one adapter does at one linear layer, w being the request's weight:
///   y0 = W (x * (1 + w * input_gain)) + b
///   y  = y0 * (1 + w * output_gain) + w * offset + w * low_rank(x)
/// Each part may be absent. Contributions of several adapters are computed from the same x and y0
/// and add up. A norm has an offset only. Only layers that share their input with no other (o,
/// down) have an input_gain.
struct SiteDelta {
  LowRankDelta low_rank;   ///< DoRA's column scale is folded into `up`
  at::Tensor input_gain;   ///< [in] fp32 or undefined
  at::Tensor output_gain;  ///< [out] fp32 or undefined
  at::Tensor offset;       ///< [out] fp32 or undefined

  bool defined() const {
    return low_rank.defined() || input_gain.defined() || output_gain.defined() || offset.defined();
  }
  SiteDelta OnDevice(at::Device device) const;
  int64_t nbytes() const;
};

/// What an adapter does to the token embedding: row0 = the override's, else the base's;
/// row = row0 * (1 + w * output_gain) + w * low_rank(token). Where several adapters of a request
/// override a row, the last does.
struct EmbeddingDelta {
  at::Tensor table;             ///< [vocab, hidden] in place of the base's, or undefined
  std::vector<int32_t> tokens;  ///< the tokens whose rows are replaced, ascending
  at::Tensor rows;              ///< [tokens, hidden], the base model's dtype; undefined when none
  at::Tensor down;              ///< [vocab, rank]: a row a token; undefined: no low-rank part
  LowRankDelta up;              ///< dense, [hidden, rank]
  at::Tensor output_gain;       ///< [hidden] fp32 or undefined
};

/// What an adapter does to the logits; overrides as in EmbeddingDelta.
struct HeadDelta {
  PackedMatrix table;           ///< [vocab, hidden] in place of the base's, or undefined
  std::vector<int32_t> tokens;  ///< ascending
  PackedMatrix rows;            ///< [tokens, hidden], undefined when there are none
  SiteDelta site;               ///< without input_gain
};

/// The virtual tokens of an adapter, which stand in front of every sequence. Exactly one of the two
/// forms.
struct AdapterContext {
  int64_t num_tokens = 0;
  at::Tensor embeddings;  ///< [num_tokens, hidden], the base model's dtype: run through the model
  /// [num_layers, num_tokens, kv_heads, head_dim], the base model's dtype: enter the KV cache as
  /// they are.
  at::Tensor keys, values;
};

/// The parts of one adapter. Immutable after compile; safe to share between threads.
class CompiledAdapter {
 public:
  explicit CompiledAdapter(int64_t num_layers);

  /// The delta at a site of a layer (for the sites of the model: layer 0), or null when the adapter
  /// leaves it alone.
  const SiteDelta* delta(int64_t layer, Site site) const {
    const SiteDelta& delta = deltas_[layer * kNumSites + static_cast<int64_t>(site)];
    return delta.defined() ? &delta : nullptr;
  }
  const BottleneckDelta* bottleneck(int64_t layer, Sublayer sublayer) const {
    return bottlenecks_[layer * 2 + static_cast<int64_t>(sublayer)].get();
  }
  const EmbeddingDelta* embedding() const { return embedding_.get(); }
  const HeadDelta* head() const { return head_.get(); }
  const AdapterContext* context() const { return context_.get(); }
  int64_t num_virtual_tokens() const { return context_ == nullptr ? 0 : context_->num_tokens; }
  /// Whether it replaces rows of the embedding or of the head.
  bool has_overrides() const { return has_overrides_; }
  /// Whether its effect grows with a request's weight; when not, only 0 and 1 make sense.
  bool has_weight() const { return context_ == nullptr && !has_overrides_; }

  /// What tensor-parallel rank `rank` needs of it: itself for rank 0, and when it is not cut.
  const CompiledAdapter& OfRank(int64_t rank) const {
    return rank == 0 || others_.empty() ? *this : *others_[static_cast<size_t>(rank - 1)];
  }

  /// A copy with every tensor on `device`, complete there, so that any stream may read it.
  /// REQUIRES: not cut.
  std::shared_ptr<const CompiledAdapter> OnDevice(at::Device device) const;

  /// Each part is set once at most.
  void set_delta(int64_t layer, Site site, SiteDelta delta);
  void set_bottleneck(int64_t layer, Sublayer sublayer, BottleneckDelta delta);
  void set_embedding(EmbeddingDelta delta);
  void set_head(HeadDelta delta);
  void set_context(AdapterContext context);
  /// Puts what products read of the sites' deltas into one block of memory, layer by layer. Values
  /// and sizes stay.
  void Compact();
  /// Makes this the part of rank 0: what ranks 1, 2, ... need.
  void set_other_ranks(std::vector<std::shared_ptr<const CompiledAdapter>> others);

  /// Bytes of all tensors, over all ranks; what ranks share counts for each.
  int64_t resident_bytes() const { return resident_bytes_; }

 private:
  // Exchanges the deltas' tensors for what `relocate` makes of them, in the order of their use.
  void Relocate(absl::FunctionRef<at::Tensor(const at::Tensor&)> relocate);

  std::vector<SiteDelta> deltas_;                              // [num_layers * kNumSites]
  std::vector<std::unique_ptr<BottleneckDelta>> bottlenecks_;  // [num_layers * 2]
  std::unique_ptr<EmbeddingDelta> embedding_;
  std::unique_ptr<HeadDelta> head_;
  std::unique_ptr<AdapterContext> context_;
  std::vector<std::shared_ptr<const CompiledAdapter>> others_;  // of ranks 1, 2, ...
  bool has_overrides_ = false;
  int64_t resident_bytes_ = 0;
};

}  // namespace tenon

#endif  // TENON_ADAPTERS_METHODS_COMPILED_ADAPTER_H_
