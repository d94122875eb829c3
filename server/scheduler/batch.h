// Batch: the immutable plan of one step.
#ifndef TENON_SERVER_SCHEDULER_BATCH_H_
#define TENON_SERVER_SCHEDULER_BATCH_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "adapters/registry/adapter_selection.h"
#include "server/scheduler/sequence.h"

namespace tenon {

/// The tokens of one sequence that this step computes: a prefill chunk, or the last token of a
/// decode.
struct BatchRow {
  const Sequence* sequence = nullptr;  ///< borrowed; lives until the step is committed
  int64_t first_token = 0;             ///< index in sequence->tokens(), which is also its position
  int64_t num_tokens = 0;              ///< > 0
  bool samples = false;  ///< the last of these tokens is the sequence's last: choose the next one
};

/// Consecutive rows with the same selection. Segments cover all rows, in order; none is empty.
struct BatchSegment {
  int64_t row_begin = 0, row_end = 0;
  int64_t token_begin = 0,
          token_end = 0;  ///< the same rows, counted in tokens of the flattened batch
  std::shared_ptr<const AdapterSelection> selection;
};

/// One step. Tokens of all rows are concatenated in row order; rows are sorted by selection.
struct Batch {
  std::vector<BatchRow> rows;
  std::vector<BatchSegment> segments;
  int64_t num_tokens = 0;

  bool empty() const { return rows.empty(); }
};

}  // namespace tenon

#endif  // TENON_SERVER_SCHEDULER_BATCH_H_
