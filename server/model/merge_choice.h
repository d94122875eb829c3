// ChooseMerged: which segments of a step run on merged weights.
#ifndef TENON_SERVER_MODEL_MERGE_CHOICE_H_
#define TENON_SERVER_MODEL_MERGE_CHOICE_H_

#include <cstdint>
#include <span>

#include "server/model/adapter_deltas.h"

namespace tenon {

/// What the machine does in a nanosecond, as far as the choice depends on it.
struct MergeCosts {
  double bytes_per_ns = 8.0;      ///< of weights, read
  double macs_per_ns = 16.0;      ///< multiply-adds of a delta
  double delta_overhead_ns = 1e3; ///< of one delta at one site, however small
};

/// Takes `merged` away from the segments for which applying the deltas costs less. A segment alone
/// in its step stays: its weights are read instead of the base's. One among others costs a second
/// reading of every matrix that it has of its own, and saves its deltas:
///   merged iff  delta_bytes / bytes_per_ns + rows * delta_macs / macs_per_ns
///               + num_deltas * delta_overhead_ns  >=  nbytes / bytes_per_ns
/// so that it takes many rows, as a prefill has.
/// `num_tokens` are those of the whole step. Returns the tokens of segments that stay merged.
int64_t ChooseMerged(const MergeCosts& costs, int64_t num_tokens,
                     std::span<AdapterSegment> segments);

}  // namespace tenon

#endif  // TENON_SERVER_MODEL_MERGE_CHOICE_H_
