// FlatBatch: a step laid out token by token.
#ifndef TENON_SERVER_MODEL_FLAT_BATCH_H_
#define TENON_SERVER_MODEL_FLAT_BATCH_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "server/kernels/attention.h"
#include "server/model/adapter_deltas.h"
#include "server/model/model_runner.h"
#include "server/model/rope_table.h"
#include "server/scheduler/batch.h"

namespace tenon {

/// The context of one of the adapters, as that tensor-parallel rank has it, or null.
const AdapterContext* FindContext(std::span<const ResolvedAdapter> adapters, int64_t rank = 0);

/// The tokens of a step: those of the rows, in order, then the virtual ones that the model has to
/// run (soft prompts; the keys and values of a prefix need no token). Borrows batch and adapters.
struct FlatBatch {
  /// `adapters` as in ModelRunner::Run. Of context rows, those with an entry in `soft_prompts` take
  /// part: indices into batch.contexts, ascending.
  FlatBatch(const Batch& batch, std::span<const ResolvedSelection> adapters,
            std::span<const size_t> soft_prompts, int64_t block_size);

  at::Tensor tokens;                     ///< [T] int64; 0 for a virtual token
  at::Tensor virtual_embeddings;         ///< [V, hidden]: the last V tokens; undefined when V is 0
  at::Tensor slots;                      ///< [T] int64
  std::vector<RopePosition> positions;   ///< [T]
  std::vector<AttentionRow> rows;        ///< cover all tokens
  std::vector<AdapterSegment> segments;  ///< those that have adapters
  /// Ascending: the tokens whose hidden states are read, to sample after them or to score what
  /// follows them in the prompt.
  std::vector<int64_t> wanted;

 private:
  void AddRow(const BatchRow& row, int64_t block_size);
  void AddSoftPrompt(const ContextRow& row, int64_t block_size);
  /// Writes the slots of the next `row.num_tokens` tokens.
  void AddSlots(const AttentionRow& row, int64_t block_size);
};

/// How many of the row's tokens have a next prompt token to be scored.
int64_t NumScored(const BatchRow& row);

/// The slots of virtual tokens [first_token, first_token + num_tokens), [num_tokens] int64.
at::Tensor ContextSlots(const ContextRow& row, int64_t block_size);

}  // namespace tenon

#endif  // TENON_SERVER_MODEL_FLAT_BATCH_H_
