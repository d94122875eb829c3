// MergedWeights: a private copy of the linear layers that some adapters change, with the change in
// it.
#ifndef TENON_SERVER_MODEL_MERGED_WEIGHTS_H_
#define TENON_SERVER_MODEL_MERGED_WEIGHTS_H_

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "adapters/methods/base_shape.h"
#include "adapters/methods/compiled_adapter.h"
#include "server/kernels/linear.h"
#include "server/model/model_config.h"
#include "server/model/model_runner.h"

namespace tenon {

class Decoder;

/// The matrices of a decoder layer as the decoder keeps them: what shares an input is stacked.
enum class LinearKind : uint8_t { kQkv, kO, kGateUp, kDown };
inline constexpr int kNumLinearKinds = 4;

/// Where an adapter's site lies in the stacked matrices: its first output row and how many.
struct LinearPart {
  LinearKind kind = LinearKind::kQkv;
  int64_t row_begin = 0, num_rows = 0;
};
/// REQUIRES: a linear layer of a decoder layer (kQ to kDown).
LinearPart PartOf(Site site, const ModelConfig& config);

/// What merging a selection would take and save, over all ranks; known before any weight is read.
struct MergeFacts {
  int64_t num_linears = 0;  ///< matrices that get a copy
  int64_t num_deltas = 0;   ///< (adapter, site) pairs that a step need not apply any more
  int64_t nbytes = 0;       ///< of the copies
  /// Of the adapters' deltas, each step and each token: bytes read, multiply-adds.
  int64_t delta_bytes = 0, delta_macs = 0;
};

/// The weights of one selection: for a linear layer with weight W and bias b, and adapters i with
/// request weights w_i whose deltas are SiteDelta,
///   W' = diag(1 + sum w_i output_gain_i) W diag(1 + sum w_i input_gain_i) + sum w_i low_rank_i
///   b' = (1 + sum w_i output_gain_i) b + sum w_i offset_i
/// computed in fp32 from the base's weights and rounded once, to their dtype. All methods that are
/// a SiteDelta are in it (LoRA and its relatives, DoRA, IA3, VeRA, LoHa, LoKr, biases);
/// bottlenecks, virtual tokens, norms, the embedding and the head are not, and are applied as ever.
///
/// In fp32 a token's result differs from the unmerged one by rounding; in bf16 also by the rounding
/// of W', as it does after PEFT's merge_and_unload.
///
/// Of a tensor-parallel model each rank's matrices are merged with its part of the adapters.
/// Thread-safe: immutable after Merge. Shares nothing with the base, which is only read: dropping
/// the copy is all there is to unmerging.
class MergedWeights {
 public:
  /// Folds the adapters into copies, layer by layer, on the caller's thread alone. `cancelled` is
  /// asked before each layer. CANCELLED when it says so; FAILED_PRECONDITION (NOTHING_TO_MERGE)
  /// when the adapters change no linear layer; RESOURCE_EXHAUSTED when there is no memory; INTERNAL
  /// when LibTorch throws.
  static absl::StatusOr<std::unique_ptr<const MergedWeights>> Merge(
      const Decoder& decoder, std::span<const ResolvedAdapter> adapters,
      const std::function<bool()>& cancelled);

  static MergeFacts Measure(const Decoder& decoder, std::span<const ResolvedAdapter> adapters);

  /// A rank's copy, or null where the adapters leave the base's alone.
  const Linear* Find(int64_t rank, int64_t layer, LinearKind kind) const {
    const Linear& linear = ranks_[rank][layer][static_cast<size_t>(kind)];
    return linear.out_features() > 0 ? &linear : nullptr;
  }
  const MergeFacts& facts() const { return facts_; }

 private:
  using Layers = std::vector<std::array<Linear, kNumLinearKinds>>;

  MergedWeights(int64_t num_ranks, int64_t num_layers) : ranks_(num_ranks, Layers(num_layers)) {}

  absl::Status MergeLayer(const Decoder& decoder, std::span<const ResolvedAdapter> adapters,
                          int64_t layer);

  std::vector<Layers> ranks_;
  MergeFacts facts_;
};

}  // namespace tenon

#endif  // TENON_SERVER_MODEL_MERGED_WEIGHTS_H_
