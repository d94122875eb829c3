#include "server/rpc/residency_report.h"

#include <cstdint>
#include <vector>

#include "absl/time/time.h"
#include "adapters/registry/adapter_selection.h"

namespace tenon {
namespace {

void Set(absl::Time time, google::protobuf::Timestamp& proto) {
  const int64_t micros = absl::ToUnixMicros(time);
  proto.set_seconds(micros / 1'000'000);
  proto.set_nanos(static_cast<int32_t>(micros % 1'000'000 * 1000));
}

void Set(absl::Duration duration, google::protobuf::Duration& proto) {
  const int64_t micros = absl::ToInt64Microseconds(duration);
  proto.set_seconds(micros / 1'000'000);
  proto.set_nanos(static_cast<int32_t>(micros % 1'000'000 * 1000));
}

v1::ResidencyState StateOf(const AdapterResidency& device, bool on_host, bool merged) {
  switch (device.state) {
    case Residency::kResident:
      return merged ? v1::RESIDENCY_STATE_MERGED : v1::RESIDENCY_STATE_DEVICE;
    case Residency::kLoading:
      return v1::RESIDENCY_STATE_LOADING;
    case Residency::kFailed:
      return v1::RESIDENCY_STATE_FAILED;
    case Residency::kCold:
      break;
  }
  // Merged weights outlive the adapter's own tensors, which each request needs beside them.
  return on_host ? v1::RESIDENCY_STATE_HOST : v1::RESIDENCY_STATE_STORED;
}

}  // namespace

v1::MergeMode ToProto(MergeMode mode) {
  switch (mode) {
    case MergeMode::kAlways:
      return v1::MERGE_MODE_ALWAYS;
    case MergeMode::kNever:
      return v1::MERGE_MODE_NEVER;
    case MergeMode::kAuto:
      break;
  }
  return v1::MERGE_MODE_AUTO;
}

v1::AdapterResidency ResidencyReport::Of(const AdapterHandle& adapter) const {
  const AdapterInfo& info = *adapter;
  const AdapterResidency device = tiers_.device->Describe(info.digest);
  const MergeStatus merge = tiers_.merged->status(AdapterSelection({{adapter, 1.0f}}).key());
  const bool is_merged = merge.state == MergeState::kMerged;
  v1::AdapterResidency proto;
  proto.set_name(info.id.name);
  proto.set_version(info.id.version);
  proto.set_state(StateOf(device, tiers_.host->Contains(info.digest), is_merged));
  proto.set_stored_bytes(info.stored_bytes);
  proto.set_device_bytes(device.resident_bytes);
  proto.set_merged_bytes(merge.nbytes);
  proto.set_pinned(device.pinned);
  proto.set_num_requests(device.num_claims);
  proto.set_hits(device.hits);
  if (device.state == Residency::kResident) {
    Set(device.last_used, *proto.mutable_last_use_time());
    if (device.load_time > absl::ZeroDuration()) {
      Set(device.load_time, *proto.mutable_load_time());
    }
  }
  proto.set_merge_mode(ToProto(merge.mode));
  if (is_merged) {
    Set(merge.merge_time, *proto.mutable_merge_time());
  }
  return proto;
}

void ResidencyReport::AddTenant(absl::string_view tenant,
                                v1::GetResidencyResponse& response) const {
  for (const AdapterStatus& status : registry_->List(tenant)) {
    *response.add_adapters() = Of(status.adapter);
  }
}

v1::ResidencyTotals ResidencyReport::Totals() const {
  const AdapterCacheStats device = tiers_.device->stats();
  const HostTierStats host = tiers_.host->stats();
  const MergeTierStats merged = tiers_.merged->stats();
  v1::ResidencyTotals totals;
  totals.set_device_bytes(device.resident_bytes);
  totals.set_device_budget_bytes(device.budget_bytes);
  totals.set_pinned_bytes(device.pinned_bytes);
  totals.set_host_bytes(host.num_bytes);
  totals.set_host_budget_bytes(host.budget_bytes);
  totals.set_merged_bytes(merged.merged_bytes);
  totals.set_merged_budget_bytes(merged.budget_bytes);
  totals.set_device_hits(device.hits);
  totals.set_device_misses(device.misses);
  totals.set_host_hits(host.hits);
  totals.set_host_misses(host.misses);
  totals.set_loads(device.loads);
  totals.set_failed_loads(device.failed_loads);
  totals.set_evictions(device.evictions);
  totals.set_merges(merged.merges);
  totals.set_failed_merges(merged.failed_merges);
  totals.set_unmerges(merged.unmerges);
  return totals;
}

}  // namespace tenon
