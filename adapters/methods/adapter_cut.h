// CutAdapter: a compiled adapter for the ranks of a tensor-parallel model.
#ifndef TENON_ADAPTERS_METHODS_ADAPTER_CUT_H_
#define TENON_ADAPTERS_METHODS_ADAPTER_CUT_H_

#include <memory>

#include "absl/status/statusor.h"
#include "adapters/methods/base_shape.h"
#include "adapters/methods/compiled_adapter.h"

namespace tenon {

/// Cuts an adapter into base.num_ranks parts, as the base's matrices are cut (Megatron-LM,
/// arXiv:1909.08053), and returns rank 0's, which has the others. With a delta
/// y = s * up (down x) that is
///   q, k, v, gate, up   the base's outputs are cut: so are the rows of `up`, gains and offsets;
///                       `down` is whole, and the update needs no communication
///   o, down             the base's inputs are cut: so are the columns of `down`, and input gains;
///                       `up` and output gains are whole and applied to each rank's part of the
///                       sum, since they are linear; the offset is rank 0's
///   prefixes            the KV heads are cut
/// A dense delta is cut as the base's matrix. Bottlenecks, norms, the embedding, the head and soft
/// prompts act on what every rank has whole: all ranks share them.
///
/// whole   on the CPU. REQUIRES: as ShareOf and KvShareOf, by which is cut.
/// Errors: those of LowRankDelta::Create. May throw what LibTorch throws.
absl::StatusOr<std::shared_ptr<const CompiledAdapter>> CutAdapter(const CompiledAdapter& whole,
                                                                  const BaseShape& base);

}  // namespace tenon

#endif  // TENON_ADAPTERS_METHODS_ADAPTER_CUT_H_
