#include "server/model/merge_choice.h"

#include "server/model/merged_weights.h"

namespace tenon {
namespace {

// Whether a segment of that many rows, beside others, saves more than it costs.
bool Pays(const MergeCosts& costs, const MergeFacts& facts, int64_t rows) {
  const double saved_bytes = static_cast<double>(facts.delta_bytes - facts.nbytes);
  const double macs = static_cast<double>(rows) * static_cast<double>(facts.delta_macs);
  return saved_bytes / costs.bytes_per_ns + macs / costs.macs_per_ns +
             static_cast<double>(facts.num_deltas) * costs.delta_overhead_ns >=
         0.0;
}

}  // namespace

int64_t ChooseMerged(const MergeCosts& costs, int64_t num_tokens,
                     std::span<AdapterSegment> segments) {
  int64_t num_merged = 0;
  for (AdapterSegment& segment : segments) {
    const int64_t rows = segment.token_end - segment.token_begin;
    if (segment.merged == nullptr) {
      continue;
    }
    if (rows == num_tokens || Pays(costs, segment.merged->facts(), rows)) {
      num_merged += rows;
    } else {
      segment.merged = nullptr;
    }
  }
  return num_merged;
}

}  // namespace tenon
