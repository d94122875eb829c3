// TensorParallelRunner: the ranks of a model that is cut, one thread each, as one ModelRunner.
#ifndef TENON_SERVER_MODEL_TENSOR_PARALLEL_RUNNER_H_
#define TENON_SERVER_MODEL_TENSOR_PARALLEL_RUNNER_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/kernels/collective.h"
#include "server/model/decoder.h"
#include "server/model/decoder_runner.h"
#include "server/model/model_runner.h"

namespace tenon {

/// Runs every batch on all ranks of a decoder (Decoder::Options::num_ranks): rank 0 on the caller's
/// thread, each other one on a thread of its own with its own KV cache of the same blocks. A
/// decoder of one rank runs as with a DecoderRunner, without threads or collectives.
///
/// Not thread-safe (engine thread). All ranks get the same sums, bit for bit, so what is promised
/// of one rank (is_batch_invariant) holds for several; their results differ from one rank's in the
/// last bits, since the sums over heads and intermediate features are rounded in parts.
///
/// A rank that fails closes its end, so that no other one waits for it. The step then fails with
/// the first rank's error that is no consequence, and the next step begins with a new group.
class TensorParallelRunner : public ModelRunner {
 public:
  /// Reserves the KV caches and connects the ranks. `decoder` is rank 0's; the rest is
  /// DecoderRunner::Create's. `timeout` bounds how long a rank waits for another one: from then on
  /// the step has failed. UNAVAILABLE when the ranks cannot be connected.
  static absl::StatusOr<std::unique_ptr<TensorParallelRunner>> Create(
      std::shared_ptr<const Decoder> decoder, int64_t num_blocks, int64_t block_size,
      int64_t max_positions, absl::Duration timeout = absl::Minutes(1));
  ~TensorParallelRunner() override;

  /// Errors of a cut model name the rank: "tensor-parallel rank 1 of 2: ...".
  absl::StatusOr<StepOutput> Run(const Batch& batch,
                                 std::span<const ResolvedSelection> adapters) override;

  /// As DecoderRunner's, of all ranks.
  void set_poison_freed_blocks(bool poison);
  void set_merge_costs(const MergeCosts& costs);
  /// As DecoderRunner's, of a decoder of one rank; without effect on others.
  void set_use_graphs(bool use) { first_->set_use_graphs(use); }
  DecodeGraphs* graphs() const { return first_->graphs(); }
  bool is_batch_invariant() const { return first_->is_batch_invariant(); }
  bool prefix_sharing_is_exact() const { return first_->prefix_sharing_is_exact(); }

 private:
  class RankThread;

  TensorParallelRunner(absl::Duration timeout, std::unique_ptr<DecoderRunner> first,
                       std::vector<std::unique_ptr<RankThread>> others);

  int64_t num_ranks() const { return static_cast<int64_t>(others_.size()) + 1; }
  /// Makes a group of the ranks.
  absl::Status Connect();
  /// The error of a step in which each rank ended like this.
  absl::Status ErrorOf(std::span<const absl::Status> ranks) const;

  const absl::Duration timeout_;
  std::vector<std::unique_ptr<Collective>> group_;  // [num_ranks]; empty: to be connected
  std::unique_ptr<DecoderRunner> first_;
  std::vector<std::unique_ptr<RankThread>> others_;  // ranks 1, 2, ...
};

}  // namespace tenon

#endif  // TENON_SERVER_MODEL_TENSOR_PARALLEL_RUNNER_H_
