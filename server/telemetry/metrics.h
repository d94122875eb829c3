// ServerMetrics: what Prometheus and an inference gateway read.
#ifndef TENON_SERVER_TELEMETRY_METRICS_H_
#define TENON_SERVER_TELEMETRY_METRICS_H_

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace tenon {

/// State of the server at one moment, read when metrics are scraped. Totals only grow.
struct ServerReading {
  int64_t num_running = 0, num_waiting = 0;
  int64_t kv_blocks_used = 0, kv_blocks_cached = 0, kv_blocks_total = 0;
  int64_t total_steps = 0, total_replays = 0, total_preemptions = 0;
  int64_t total_prompt_tokens = 0, total_cached_prompt_tokens = 0, total_generated_tokens = 0;
  int64_t num_live_adapters = 0;
  int64_t num_quarantined_adapters = 0;
  int64_t num_resident_adapters = 0, resident_adapter_bytes = 0, adapter_budget_bytes = 0;
  int64_t total_adapter_hits = 0, total_adapter_loads = 0, total_failed_adapter_loads = 0,
          total_adapter_evictions = 0;
  int64_t store_current = 1;     ///< 0: the shared store could not be reached at the last look
  int64_t store_generation = 0;  ///< StoreStatus::generation; 0 for a store that is not shared
  int64_t held_adapter_bytes = 0, pinned_adapter_bytes = 0, total_adapter_misses = 0;
  int64_t num_host_adapters = 0, host_adapter_bytes = 0, host_adapter_budget_bytes = 0;
  int64_t total_host_hits = 0, total_host_misses = 0;
  int64_t num_merged = 0, merged_bytes = 0, merged_budget_bytes = 0;
  int64_t total_merges = 0, total_failed_merges = 0, total_unmerges = 0, total_merged_tokens = 0;
  int64_t token_keys_current = 1;  ///< 0: the JWKS file is bad, an older one is in force
  /// As clients write them, sorted, distinct.
  std::vector<std::string> running_adapters, waiting_adapters;
};

/// Facts that do not change while the process lives.
struct ServerFacts {
  std::string version;  ///< of Tenon
  std::string model, dtype, device;
  int64_t max_adapters_per_step = 0;  ///< different adapters that one batch may hold
  int64_t kv_block_size = 0;          ///< tokens
};

/// Where one finished sample's time went.
struct GenerationTimes {
  absl::Duration queue, adapter_wait, prefill, decode;
  int64_t num_generated_tokens = 0;
};

/// What one generation request took.
struct TenantUse {
  int64_t prompt_tokens = 0, cached_prompt_tokens = 0, generated_tokens = 0;
  double device_seconds = 0;
};

/// Own metrics are named tenon_*; the few that gateways look for have vLLM's names too (Gateway API
/// Inference Extension, model server protocol). Label values come from closed sets, except the
/// adapter names of vllm:lora_requests_info, which keeps one series, and tenants, which are
/// bounded.
///
/// Thread-safe. Cheap enough for every request; nothing here runs per token.
class ServerMetrics {
 public:
  /// `clock` gives the timestamps of vllm:lora_requests_info.
  ServerMetrics(const ServerFacts& facts, std::function<absl::Time()> clock);
  ServerMetrics(const ServerMetrics&) = delete;
  ServerMetrics& operator=(const ServerMetrics&) = delete;

  /// Counts one finished call. `method` is the RPC's name, `outcome` a status code's name in lower
  /// case ("ok", "cancelled").
  void RecordCall(absl::string_view method, absl::string_view outcome);

  /// Counts a caller who was not let in, by the error's reason ("CREDENTIALS_EXPIRED").
  void RecordRefusal(absl::string_view reason);

  /// Counts a generation request that has ended for its tenant. The first kMaxTenantLabels tenants
  /// have series of their own, the others share the tenant "other".
  void RecordTenant(absl::string_view tenant, const TenantUse& use)
      ABSL_LOCKS_EXCLUDED(tenants_mutex_);

  /// Counts a request that a quota refused, by the error's reason ("TOKEN_RATE").
  void RecordQuotaRefusal(absl::string_view tenant, absl::string_view reason)
      ABSL_LOCKS_EXCLUDED(tenants_mutex_);

  static constexpr size_t kMaxTenantLabels = 200;

  /// The end-to-end time of one generation call, whatever its outcome.
  void RecordLatency(absl::Duration end_to_end) { end_to_end_->Observe(ToSeconds(end_to_end)); }

  /// Once per sample that produced a token.
  void RecordGeneration(const GenerationTimes& times);

  /// Counts one upload and the bytes that it stored (0 when refused).
  void RecordUpload(absl::string_view outcome, int64_t stored_bytes);

  /// Everything in Prometheus's text format 0.0.4, after taking over `reading`.
  std::string Render(const ServerReading& reading) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  // A counter whose value is kept elsewhere: grows by the difference to the last reading.
  struct Total {
    prometheus::Counter* counter = nullptr;
    int64_t ServerReading::* field = nullptr;
  };
  struct Level {
    prometheus::Gauge* gauge = nullptr;
    int64_t ServerReading::* field = nullptr;
  };

  static double ToSeconds(absl::Duration duration) { return absl::ToDoubleSeconds(duration); }
  prometheus::Histogram* AddHistogram(const std::string& name, const std::string& help,
                                      const std::vector<double>& bounds);
  void AddLevel(const std::string& name, const std::string& help, int64_t ServerReading::* field);
  void AddTotal(const std::string& name, const std::string& help, int64_t ServerReading::* field);
  void AddInfo(const ServerFacts& facts);
  void AddEngineMetrics();
  void AddAdapterMetrics();
  void AddTierMetrics();
  void AddLatencies();
  void AddTenants();
  std::string TenantLabel(absl::string_view tenant) ABSL_LOCKS_EXCLUDED(tenants_mutex_);
  void TakeOver(const ServerReading& reading) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void PublishAdapters(const ServerReading& reading) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::function<absl::Time()> clock_;
  const std::string max_adapters_;
  prometheus::Registry registry_;
  std::vector<Level> levels_;
  std::vector<Total> totals_;
  prometheus::Family<prometheus::Counter>* calls_;
  prometheus::Family<prometheus::Counter>* refusals_;
  prometheus::Family<prometheus::Counter>* uploads_;
  prometheus::Counter* upload_bytes_;
  prometheus::Histogram* end_to_end_;
  prometheus::Histogram* time_to_first_token_;
  prometheus::Histogram* time_per_output_token_;
  prometheus::Histogram* queue_;
  prometheus::Histogram* adapter_wait_;
  prometheus::Gauge* kv_usage_;
  prometheus::Family<prometheus::Gauge>* adapters_info_;

  prometheus::Family<prometheus::Counter>* tenant_requests_;
  prometheus::Family<prometheus::Counter>* tenant_tokens_;
  prometheus::Family<prometheus::Counter>* tenant_device_seconds_;
  prometheus::Family<prometheus::Counter>* quota_refusals_;

  absl::Mutex tenants_mutex_;
  absl::flat_hash_set<std::string> tenants_ ABSL_GUARDED_BY(tenants_mutex_);

  absl::Mutex mutex_;  // one scrape at a time
  prometheus::Gauge* adapters_series_ ABSL_GUARDED_BY(mutex_) = nullptr;
};

}  // namespace tenon

#endif  // TENON_SERVER_TELEMETRY_METRICS_H_
