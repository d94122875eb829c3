#include "server/server_reading.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace tenon {
namespace {

// "default/fr@3" of the engine -> "fr", which is what clients and so gateways call it.
std::vector<std::string> ClientNames(const std::vector<std::string>& engine_names) {
  std::vector<std::string> names;
  for (absl::string_view name : engine_names) {
    name = name.substr(0, name.rfind('@'));
    names.emplace_back(name.substr(name.find('/') + 1));
  }
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

}  // namespace

void ReadEngine(const EngineStats& engine, ServerReading& reading) {
  reading.num_running = engine.num_running;
  reading.num_waiting = engine.num_waiting;
  reading.kv_blocks_used = engine.kv_blocks_used;
  reading.kv_blocks_cached = engine.kv_blocks_cached;
  reading.kv_blocks_total = engine.kv_blocks_total;
  reading.total_steps = engine.num_steps;
  reading.total_replays = engine.num_replays;
  reading.total_preemptions = engine.num_preemptions;
  reading.total_prompt_tokens = engine.prompt_tokens;
  reading.total_cached_prompt_tokens = engine.cached_prompt_tokens;
  reading.total_generated_tokens = engine.generated_tokens;
  reading.total_merged_tokens = engine.merged_tokens;
  reading.running_adapters = ClientNames(engine.running_adapters);
  reading.waiting_adapters = ClientNames(engine.waiting_adapters);
}

void ReadTiers(const MergeTierStats& merged, const AdapterCacheStats& device,
               const HostTierStats& host, ServerReading& reading) {
  reading.num_resident_adapters = device.num_resident;
  reading.resident_adapter_bytes = device.resident_bytes;
  reading.adapter_budget_bytes = device.budget_bytes;
  reading.total_adapter_hits = device.hits;
  reading.total_adapter_loads = device.loads;
  reading.total_failed_adapter_loads = device.failed_loads;
  reading.total_adapter_evictions = device.evictions;
  reading.held_adapter_bytes = device.held_bytes;
  reading.pinned_adapter_bytes = device.pinned_bytes;
  reading.total_adapter_misses = device.misses;
  reading.num_host_adapters = host.num_adapters;
  reading.host_adapter_bytes = host.num_bytes;
  reading.host_adapter_budget_bytes = host.budget_bytes;
  reading.total_host_hits = host.hits;
  reading.total_host_misses = host.misses;
  reading.num_merged = merged.num_merged;
  reading.merged_bytes = merged.merged_bytes;
  reading.merged_budget_bytes = merged.budget_bytes;
  reading.total_merges = merged.merges;
  reading.total_failed_merges = merged.failed_merges;
  reading.total_unmerges = merged.unmerges;
}

}  // namespace tenon
