// AdapterPins: one request's claim on the tensors of its adapters.
#ifndef TENON_SERVER_ENGINE_ADAPTER_PINS_H_
#define TENON_SERVER_ENGINE_ADAPTER_PINS_H_

#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "adapters/registry/adapter_selection.h"
#include "adapters/residency/adapter_cache.h"
#include "server/model/model_runner.h"

namespace tenon {

/// Claims the adapters of a selection as soon as there is room for all of them, pins each when it
/// is resident, and keeps both until destroyed. Not thread-safe; ends before the cache.
class AdapterPins {
 public:
  /// `claim` may have been taken already; else Update takes it.
  AdapterPins(std::shared_ptr<const AdapterSelection> selection, AdapterClaim claim);

  /// Starts loading what is claimed and was forgotten meanwhile, pins what has become resident;
  /// `wake` is run when there is more to pin. Never waits. Returns the load's error when one
  /// failed, RESOURCE_EXHAUSTED when there will never be room.
  absl::Status Update(AdapterCache* cache, const std::function<void()>& wake);

  /// Tries to claim: as the oldest of those who wait for room, for `waited` by now, or as one of
  /// the others. RESOURCE_EXHAUSTED when there will never be room.
  absl::Status Claim(AdapterCache* cache, bool is_first, absl::Duration waited,
                     const std::function<void()>& wake);

  /// Whether room is claimed (or not needed).
  bool claimed() const { return claim_ || pins_.empty(); }
  /// Whether all adapters are pinned.
  bool complete() const { return num_pinned_ == pins_.size(); }
  /// One per adapter of the selection, in order. Valid when complete.
  const std::vector<ResolvedAdapter>& resolved() const { return resolved_; }

 private:
  absl::Status UpdateOne(size_t index, AdapterCache* cache, const std::function<void()>& wake);

  std::shared_ptr<const AdapterSelection> selection_;
  AdapterClaim claim_;
  std::vector<std::shared_ptr<const CompiledAdapter>> pins_;  // null until pinned
  std::vector<ResolvedAdapter> resolved_;
  size_t num_pinned_ = 0;
};

/// The handles of a selection's adapters.
std::vector<AdapterHandle> HandlesOf(const AdapterSelection& selection);

}  // namespace tenon

#endif  // TENON_SERVER_ENGINE_ADAPTER_PINS_H_
