// TokenSelection: some of a step's tokens, laid out as a step of their own.
#ifndef TENON_SERVER_MODEL_TOKEN_SELECTION_H_
#define TENON_SERVER_MODEL_TOKEN_SELECTION_H_

#include <cstdint>
#include <span>
#include <vector>

#include "server/kernels/attention.h"
#include "server/model/adapter_deltas.h"

namespace tenon {

/// What the operations of a layer need to run for chosen tokens alone, once the keys and values of
/// all are in the cache. Token `tokens[i]` of the step is token i here.
struct TokenSelection {
  /// `tokens` ascend; `rows` and `segments` are those of the step.
  TokenSelection(std::span<const int64_t> tokens, std::span<const AttentionRow> rows,
                 std::span<const AdapterSegment> segments);

  std::vector<AttentionRow> rows;        ///< one for each run of neighbours in a row
  std::vector<AdapterSegment> segments;  ///< those that have tokens
};

/// The index of the first of ascending `tokens` that is at least `token`.
int64_t IndexIn(std::span<const int64_t> tokens, int64_t token);

}  // namespace tenon

#endif  // TENON_SERVER_MODEL_TOKEN_SELECTION_H_
