// Batch: the immutable plan of one step.
#ifndef TENON_SERVER_SCHEDULER_BATCH_H_
#define TENON_SERVER_SCHEDULER_BATCH_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "adapters/registry/adapter_selection.h"
#include "server/scheduler/context.h"
#include "server/scheduler/sequence.h"

namespace tenon {

/// The tokens of one sequence that this step computes: a prefill chunk, or the last token of a
/// decode.
struct BatchRow {
  const Sequence* sequence = nullptr;  ///< borrowed; lives until the step is committed
  int64_t first_token = 0;             ///< index in sequence->tokens()
  int64_t num_tokens = 0;              ///< > 0
  bool samples = false;  ///< the last of these tokens is the sequence's last: choose the next one
};

/// The virtual tokens of a context that this step computes, once for all its users.
struct ContextRow {
  std::shared_ptr<const Context> context;
  const Sequence* user = nullptr;  ///< one of those that need it; borrowed as in BatchRow
  int64_t first_token = 0;         ///< index among the virtual tokens, which is also its position
  int64_t num_tokens = 0;          ///< > 0
};

/// Consecutive rows with the same selection, all merged or none. Segments cover all rows, in order;
/// none is empty.
struct BatchSegment {
  int64_t row_begin = 0, row_end = 0;
  int64_t token_begin = 0,
          token_end = 0;  ///< the same rows, counted in tokens of the flattened batch
  std::shared_ptr<const AdapterSelection> selection;
  bool merged = false;  ///< Sequence::merged() of its rows
};

/// One step. Tokens of all rows are concatenated in row order; rows are sorted by selection,
/// merged ones behind all others, so that the rows that share the base's weights are neighbours.
/// A row may belong to a context that the same step computes: keys of all tokens are in the cache
/// before attention looks at any.
struct Batch {
  std::vector<BatchRow> rows;
  std::vector<BatchSegment> segments;
  int64_t num_tokens = 0;  ///< of all rows

  std::vector<ContextRow> contexts;  ///< no context twice; of no segment
  int64_t num_context_tokens = 0;    ///< of all contexts

  /// Blocks whose content nobody may look at any more, before any of them is written by this step:
  /// a runner may overwrite them to prove it.
  std::vector<BlockId> recycled_blocks;

  bool empty() const { return rows.empty() && contexts.empty(); }
};

}  // namespace tenon

#endif  // TENON_SERVER_SCHEDULER_BATCH_H_
