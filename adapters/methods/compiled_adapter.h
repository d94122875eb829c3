// CompiledAdapter: an adapter fitted to this base model. Everything below the compiler sees this
// and no method names.
#ifndef TENON_ADAPTERS_METHODS_COMPILED_ADAPTER_H_
#define TENON_ADAPTERS_METHODS_COMPILED_ADAPTER_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "adapters/kernels/low_rank.h"
#include "adapters/methods/base_shape.h"

namespace tenon {

/// The deltas of one adapter, by layer and site. Immutable after compile; safe to share between
/// threads.
class CompiledAdapter {
 public:
  explicit CompiledAdapter(int64_t num_layers) : deltas_(num_layers * kNumSites) {}

  /// The delta at a site, or null when the adapter leaves it alone.
  const LowRankDelta* delta(int64_t layer, Site site) const {
    const LowRankDelta& delta = deltas_[layer * kNumSites + static_cast<int64_t>(site)];
    return delta.defined() ? &delta : nullptr;
  }
  void set_delta(int64_t layer, Site site, LowRankDelta delta) {
    resident_bytes_ += delta.nbytes();
    deltas_[layer * kNumSites + static_cast<int64_t>(site)] = std::move(delta);
  }

  /// Bytes of all tensors.
  int64_t resident_bytes() const { return resident_bytes_; }

 private:
  std::vector<LowRankDelta> deltas_;  // [num_layers * kNumSites]
  int64_t resident_bytes_ = 0;
};

}  // namespace tenon

#endif  // TENON_ADAPTERS_METHODS_COMPILED_ADAPTER_H_
