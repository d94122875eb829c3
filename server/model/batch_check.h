// CheckBatch: that a step names nothing that is not there.
#ifndef TENON_SERVER_MODEL_BATCH_CHECK_H_
#define TENON_SERVER_MODEL_BATCH_CHECK_H_

#include <cstdint>

#include "absl/status/status.h"
#include "server/scheduler/batch.h"

namespace tenon {

/// What a runner has.
struct BatchLimits {
  int64_t vocab_size = 0;
  int64_t num_blocks = 0, block_size = 0;  ///< of the KV cache
  int64_t max_positions = 0;
};

/// Whether every token, position and block of the batch is there, its counts agree, and there are
/// `num_selections` adapter lists, one for each segment and context. INTERNAL when not, naming the
/// request: whoever made the batch is wrong, and computing it would touch others' memory.
absl::Status CheckBatch(const Batch& batch, int64_t num_selections, const BatchLimits& limits);

}  // namespace tenon

#endif  // TENON_SERVER_MODEL_BATCH_CHECK_H_
