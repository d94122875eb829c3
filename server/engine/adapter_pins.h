// AdapterPins: one request's claim on the tensors of its adapters.
#ifndef TENON_SERVER_ENGINE_ADAPTER_PINS_H_
#define TENON_SERVER_ENGINE_ADAPTER_PINS_H_

#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "adapters/registry/adapter_selection.h"
#include "adapters/residency/adapter_cache.h"
#include "server/model/model_runner.h"

namespace tenon {

/// Pins each adapter of a selection as soon as it is resident, and keeps it until destroyed.
/// Not thread-safe (engine thread).
class AdapterPins {
 public:
  explicit AdapterPins(std::shared_ptr<const AdapterSelection> selection);

  /// Pins what has become resident and asks again for what was evicted before it was pinned; `wake`
  /// is run when that is there. Never waits. Returns the load's error when one failed.
  absl::Status Update(AdapterCache* cache, const std::function<void()>& wake);

  /// Whether all adapters are pinned.
  bool complete() const { return num_pinned_ == pins_.size(); }
  /// One per adapter of the selection, in order. Valid when complete.
  const std::vector<ResolvedAdapter>& resolved() const { return resolved_; }

 private:
  absl::Status UpdateOne(size_t index, AdapterCache* cache, const std::function<void()>& wake);

  std::shared_ptr<const AdapterSelection> selection_;
  std::vector<std::shared_ptr<const CompiledAdapter>> pins_;  // null until pinned
  std::vector<ResolvedAdapter> resolved_;
  size_t num_pinned_ = 0;
};

}  // namespace tenon

#endif  // TENON_SERVER_ENGINE_ADAPTER_PINS_H_
