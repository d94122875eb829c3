// What the metrics show of the engine and of the tiers of adapters.
#ifndef TENON_SERVER_SERVER_READING_H_
#define TENON_SERVER_SERVER_READING_H_

#include "adapters/residency/adapter_cache.h"
#include "adapters/residency/host_tier.h"
#include "server/engine/engine.h"
#include "server/engine/merge_tier.h"
#include "server/telemetry/metrics.h"

namespace tenon {

/// Fills in what is the engine's: rows, queue, KV blocks, tokens, and adapters as clients name
/// them.
void ReadEngine(const EngineStats& engine, ServerReading& reading);

/// Fills in what is where of the adapters, and how often it was found there.
void ReadTiers(const MergeTierStats& merged, const AdapterCacheStats& device,
               const HostTierStats& host, ServerReading& reading);

}  // namespace tenon

#endif  // TENON_SERVER_SERVER_READING_H_
