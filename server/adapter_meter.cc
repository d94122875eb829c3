#include "server/adapter_meter.h"

#include <algorithm>

namespace tenon {

AdapterMeter::AdapterMeter(Sources sources)
    : sources_(std::move(sources)), last_(sources_.clock()) {}

void AdapterMeter::CountLoad(const AdapterId& id) {
  absl::MutexLock lock(&mutex_);
  ++loads_[{id.tenant, id.name}];
}

void AdapterMeter::AddTo(UsageLedger& ledger) {
  std::map<std::pair<std::string, std::string>, int64_t> loads;
  double seconds = 0;
  {
    absl::MutexLock lock(&mutex_);
    loads.swap(loads_);
    const absl::Time now = sources_.clock();
    seconds = std::max(absl::ToDoubleSeconds(now - last_), 0.0);
    last_ = now;
  }
  for (const auto& [subject, count] : loads) {
    ledger.AddTotals({subject.first, subject.second, {.loads = count}});
  }
  const absl::flat_hash_map<std::string, int64_t> resident = sources_.resident_bytes();
  if (resident.empty()) {
    return;
  }
  for (const std::string& tenant : sources_.tenants()) {
    for (const AdapterStatus& status : sources_.registry->List(tenant)) {
      const auto bytes = resident.find(status.adapter->digest);
      if (bytes != resident.end()) {
        ledger.AddTotals({tenant,
                          status.adapter.id().name,
                          {.adapter_byte_seconds = static_cast<double>(bytes->second) * seconds}});
      }
    }
  }
}

}  // namespace tenon
