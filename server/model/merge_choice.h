// ChooseMerged: which segments of a step run on merged weights.
#ifndef TENON_SERVER_MODEL_MERGE_CHOICE_H_
#define TENON_SERVER_MODEL_MERGE_CHOICE_H_

#include <cstdint>
#include <span>

#include "server/model/adapter_deltas.h"

namespace tenon {

/// What the machine does in a nanosecond, as far as the choice depends on it. Measured by
/// merge_benchmark on one core of an EPYC with AVX2, SmolLM2-135M in fp32, rank 16 on every layer:
/// a decode step of 8 rows takes 60 ms, 4 of them on weights of their own add 31 ms for 424 MB, and
/// 8 rows of one adapter's deltas add 2 to 4 ms.
struct MergeCosts {
  double bytes_per_ns = 14.0;      ///< of weights, read once more
  double macs_per_ns = 16.0;       ///< multiply-adds of a delta
  double delta_overhead_ns = 1e3;  ///< of one delta at one site, however small
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
