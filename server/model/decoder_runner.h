// DecoderRunner: the ModelRunner of the product.
#ifndef TENON_SERVER_MODEL_DECODER_RUNNER_H_
#define TENON_SERVER_MODEL_DECODER_RUNNER_H_

#include <ATen/core/Tensor.h>
#include <c10/core/Stream.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/model/decode_graphs.h"
#include "server/model/decoder.h"
#include "server/model/flat_batch.h"
#include "server/model/kv_cache.h"
#include "server/model/logit_adjustments.h"
#include "server/model/merge_choice.h"
#include "server/model/model_runner.h"
#include "server/model/rope_table.h"
#include "server/model/sampler.h"

namespace tenon {

/// Lays a batch out as tensors, runs the decoder, chooses the tokens.
///
/// Not thread-safe (engine thread). How many threads the kernels use is the caller's business
/// (SetNumKernelThreads).
class DecoderRunner : public ModelRunner {
 public:
  /// Reserves the KV cache. `max_positions` bounds the position of every token that will be run;
  /// INVALID_ARGUMENT when the model has learned fewer.
  static absl::StatusOr<std::unique_ptr<DecoderRunner>> Create(
      std::shared_ptr<const Decoder> decoder, int64_t num_blocks, int64_t block_size,
      int64_t max_positions);

  /// The end of a tensor-parallel rank's group, borrowed until another is set; never null in Run of
  /// a rank whose decoder is cut. Every rank runs the same batches; the tokens are rank 0's.
  void set_collective(Collective* collective) { collective_ = collective; }

  /// Virtual tokens of soft prompts run through the model under the deltas of their selection;
  /// those of prefixes are copied. Soft prompts fail with FAILED_PRECONDITION where
  /// prefix_sharing_is_exact() is false.
  /// Also fails, with INTERNAL and before anything is computed, on a batch that names a token,
  /// position or block which does not exist.
  absl::StatusOr<StepOutput> Run(const Batch& batch,
                                 std::span<const ResolvedSelection> adapters) override;

  const KvCache& kv_cache() const { return cache_; }

  /// Overwrites KV blocks with NaN when they are freed or evicted, and all of them now: a row that
  /// reads what it may not fails with NaN logits. On from the start in debug builds.
  void set_poison_freed_blocks(bool poison);
  /// Whether a row's result has the same bits in every batch and every chunking.
  bool is_batch_invariant() const;
  /// Whether KV blocks may be shared between sequences by their tokens alone; when not, the
  /// scheduler's prefix cache has to be off.
  bool prefix_sharing_is_exact() const;

  /// Whether decode steps on a GPU are recorded as CUDA graphs; from the start they are, where
  /// kernels and device are of the kind.
  void set_use_graphs(bool use);
  /// Null without.
  DecodeGraphs* graphs() const { return graphs_.get(); }

  /// What decides when merged weights are used beside others.
  void set_merge_costs(const MergeCosts& costs) { merge_costs_ = costs; }

 private:
  DecoderRunner(std::shared_ptr<const Decoder> decoder, KvCache cache, int64_t max_positions);

  /// Whether the adapters' context is what the row promises and can be served here.
  absl::Status CheckContext(const ContextRow& row, const AdapterContext* context) const;
  /// Copies prefixes into the KV cache and notes who failed in the output's context_status. Returns
  /// the indices of the context rows that the model has to run.
  std::vector<size_t> StartContexts(const Batch& batch, std::span<const ResolvedSelection> adapters,
                                    StepOutput& output);
  void CopyPrefix(const ContextRow& row, const AdapterContext& context);
  at::Device device() const { return decoder_->options().device; }
  at::Tensor Forward(const FlatBatch& flat);
  /// One result for each row of logits [R, V], fp32, on the device.
  std::vector<absl::StatusOr<SampledToken>> Sample(const at::Tensor& logits,
                                                   std::span<const Sequence* const> sequences);
  /// Those rows of `sampled`, from logits on the CPU; the rows go round the kernels' threads.
  void SampleOnCpu(const at::Tensor& logits, std::span<const Sequence* const> sequences,
                   std::span<const int64_t> which, std::span<absl::StatusOr<SampledToken>> sampled);
  /// hidden [flat.wanted.size(), hidden]: the states of the tokens that are wanted.
  void SampleRows(const Batch& batch, const at::Tensor& hidden, const FlatBatch& flat,
                  StepOutput& output);
  /// A token for each row of logits [R, V].
  void SampleLogits(const at::Tensor& logits, std::span<const Sequence* const> sequences,
                    StepOutput& output);
  /// The step as it is flattened: with a graph, or operation by operation.
  void RunFlat(const Batch& batch, const FlatBatch& flat, StepOutput& output);
  /// The tokens of rows without log-probabilities, chosen on the device from logits that are
  /// adjusted in place; none for the others, and for rows that fail, which they do for SampleOnCpu
  /// then, too.
  std::vector<std::optional<int32_t>> SampleOnDevice(const at::Tensor& logits,
                                                     std::span<const Sequence* const> sequences);
  void ScorePrompts(const Batch& batch, const at::Tensor& hidden, const FlatBatch& flat,
                    StepOutput& output);

  std::shared_ptr<const Decoder> decoder_;
  Collective* collective_ = nullptr;
  std::optional<c10::Stream> stream_;  // that steps run on; none on the CPU
  KvCache cache_;
  bool poison_freed_blocks_ = false;
  int64_t max_positions_;
  std::vector<RopeTable> ropes_;   // one for each of ModelConfig::ropes
  std::vector<Sampler> samplers_;  // one for each part of a step's rows
  LogitAdjustments adjustments_;   // of the rows that the device chooses for
  std::unique_ptr<DecodeGraphs> graphs_;
  MergeCosts merge_costs_;
};

}  // namespace tenon

#endif  // TENON_SERVER_MODEL_DECODER_RUNNER_H_
