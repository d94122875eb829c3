#include "server/model/token_selection.h"

#include <algorithm>

namespace tenon {
namespace {

// Appends the runs of neighbours among tokens [begin, end), which lie in `row`.
void AddRuns(std::span<const int64_t> tokens, int64_t begin, int64_t end, const AttentionRow& row,
             std::vector<AttentionRow>& runs) {
  for (int64_t first = begin, last; first < end; first = last) {
    for (last = first + 1; last < end && tokens[last] == tokens[last - 1] + 1; ++last) {
    }
    AttentionRow run = row;
    run.token_begin = first;
    run.num_tokens = last - first;
    run.first_position = row.first_position + tokens[first] - row.token_begin;
    runs.push_back(run);
  }
}

}  // namespace

int64_t IndexIn(std::span<const int64_t> tokens, int64_t token) {
  return std::lower_bound(tokens.begin(), tokens.end(), token) - tokens.begin();
}

TokenSelection::TokenSelection(std::span<const int64_t> tokens,
                               std::span<const AttentionRow> all_rows,
                               std::span<const AdapterSegment> all_segments) {
  for (const AttentionRow& row : all_rows) {
    AddRuns(tokens, IndexIn(tokens, row.token_begin),
            IndexIn(tokens, row.token_begin + row.num_tokens), row, rows);
  }
  for (AdapterSegment segment : all_segments) {
    segment.token_begin = IndexIn(tokens, segment.token_begin);
    segment.token_end = IndexIn(tokens, segment.token_end);
    if (segment.token_begin < segment.token_end) {
      segments.push_back(segment);
    }
  }
}

}  // namespace tenon
