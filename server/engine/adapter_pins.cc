#include "server/engine/adapter_pins.h"

#include <utility>

#include "adapters/base/status_macros.h"

namespace tenon {

std::vector<AdapterHandle> HandlesOf(const AdapterSelection& selection) {
  std::vector<AdapterHandle> handles;
  for (const WeightedAdapter& wanted : selection.adapters()) {
    handles.push_back(wanted.adapter);
  }
  return handles;
}

AdapterPins::AdapterPins(std::shared_ptr<const AdapterSelection> selection, AdapterClaim claim)
    : selection_(std::move(selection)),
      claim_(std::move(claim)),
      pins_(selection_->adapters().size()),
      resolved_(selection_->adapters().size()) {}

absl::Status AdapterPins::Claim(AdapterCache* cache, bool is_first, absl::Duration waited,
                                const std::function<void()>& wake) {
  const std::vector<AdapterHandle> handles = HandlesOf(*selection_);
  if (is_first) {
    TENON_ASSIGN_OR_RETURN(claim_, cache->ClaimFirst(handles, waited, wake));
  } else {
    TENON_ASSIGN_OR_RETURN(claim_, cache->Claim(handles, wake));
  }
  return absl::OkStatus();
}

absl::Status AdapterPins::Update(AdapterCache* cache, const std::function<void()>& wake) {
  for (size_t i = 0; i < pins_.size(); ++i) {
    if (pins_[i] == nullptr) {
      TENON_RETURN_IF_ERROR(UpdateOne(i, cache, wake));
    }
  }
  return absl::OkStatus();
}

absl::Status AdapterPins::UpdateOne(size_t index, AdapterCache* cache,
                                    const std::function<void()>& wake) {
  const WeightedAdapter& wanted = selection_->adapters()[index];
  const Residency state = cache->state(wanted.adapter->digest);
  if (state == Residency::kResident || state == Residency::kFailed) {
    absl::StatusOr<std::shared_ptr<const CompiledAdapter>> pin = cache->Pin(wanted.adapter->digest);
    if (pin.ok()) {
      pins_[index] = *std::move(pin);
      resolved_[index] = {.adapter = pins_[index].get(), .weight = wanted.weight};
      ++num_pinned_;
      return absl::OkStatus();
    }
    if (state == Residency::kFailed) {
      return pin.status();
    }
  }
  if (state != Residency::kLoading) {
    cache->Prefetch(wanted.adapter, wake);
  }
  return absl::OkStatus();
}

}  // namespace tenon
