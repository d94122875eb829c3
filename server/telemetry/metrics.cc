#include "server/telemetry/metrics.h"

#include <prometheus/text_serializer.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace tenon {
namespace {

// Seconds. From a step on a tiny model to a long answer on a busy CPU.
const std::vector<double> kLatencyBounds = {0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1,
                                            2.5,   5,    10,    25,   50,  100,  250};
const std::vector<double> kTokenBounds = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
                                          0.075, 0.1,    0.15,  0.25, 0.5,   1};

}  // namespace

ServerMetrics::ServerMetrics(const ServerFacts& facts, std::function<absl::Time()> clock)
    : clock_(std::move(clock)), max_adapters_(absl::StrCat(facts.max_adapters_per_step)) {
  AddInfo(facts);
  AddEngineMetrics();
  AddAdapterMetrics();
  AddTierMetrics();
  AddLatencies();
  AddTenants();
}

void ServerMetrics::AddInfo(const ServerFacts& facts) {
  prometheus::BuildGauge()
      .Name("tenon_build_info")
      .Help("Always 1; its labels say what runs.")
      .Register(registry_)
      .Add({{"version", facts.version},
            {"model", facts.model},
            {"dtype", facts.dtype},
            {"device", facts.device}})
      .Set(1);
  prometheus::BuildGauge()
      .Name("tenon_kv_block_size_tokens")
      .Help("Tokens that one KV block holds.")
      .Register(registry_)
      .Add({})
      .Set(static_cast<double>(facts.kv_block_size));
}

void ServerMetrics::AddEngineMetrics() {
  calls_ = &prometheus::BuildCounter()
                .Name("tenon_requests_total")
                .Help("Finished calls by method and status code.")
                .Register(registry_);
  refusals_ = &prometheus::BuildCounter()
                   .Name("tenon_refused_callers_total")
                   .Help("Callers that were not let in, by reason.")
                   .Register(registry_);
  AddLevel("tenon_sequences_running", "Sequences in the batch.", &ServerReading::num_running);
  AddLevel("tenon_sequences_waiting", "Sequences in the queue.", &ServerReading::num_waiting);
  AddLevel("tenon_kv_blocks_used", "KV blocks that sequences hold.",
           &ServerReading::kv_blocks_used);
  AddLevel("tenon_kv_blocks_cached", "KV blocks that nobody holds and a prefix may find again.",
           &ServerReading::kv_blocks_cached);
  AddLevel("tenon_kv_blocks_total", "KV blocks there are.", &ServerReading::kv_blocks_total);
  AddTotal("tenon_steps_total", "Forward passes.", &ServerReading::total_steps);
  AddTotal("tenon_replayed_steps_total",
           "Forward passes of tenon_steps_total that were recorded CUDA graphs.",
           &ServerReading::total_replays);
  AddTotal("tenon_preemptions_total", "Sequences that gave their KV blocks up and began again.",
           &ServerReading::total_preemptions);
  AddTotal("tenon_prompt_tokens_total", "Prompt tokens of requests taken, cached ones included.",
           &ServerReading::total_prompt_tokens);
  AddTotal("tenon_cached_prompt_tokens_total", "Prompt tokens found in the prefix cache.",
           &ServerReading::total_cached_prompt_tokens);
  AddTotal("tenon_generated_tokens_total", "Tokens generated.",
           &ServerReading::total_generated_tokens);
  AddLevel("vllm:num_requests_running", "tenon_sequences_running, by the name gateways know.",
           &ServerReading::num_running);
  AddLevel("vllm:num_requests_waiting", "tenon_sequences_waiting, by the name gateways know.",
           &ServerReading::num_waiting);
  kv_usage_ = &prometheus::BuildGauge()
                   .Name("vllm:kv_cache_usage_perc")
                   .Help("Part of the KV blocks that sequences hold, 0 to 1.")
                   .Register(registry_)
                   .Add({});
}

void ServerMetrics::AddTierMetrics() {
  AddLevel("tenon_adapter_held_bytes", "Bytes of resident adapters that requests use or wait for.",
           &ServerReading::held_adapter_bytes);
  AddLevel("tenon_adapter_pinned_bytes", "Bytes of adapters that PinAdapter keeps resident.",
           &ServerReading::pinned_adapter_bytes);
  AddTotal("tenon_adapter_misses_total", "Requests whose adapter had to be loaded.",
           &ServerReading::total_adapter_misses);
  AddLevel("tenon_host_adapters", "Adapters whose files are mapped, checked and parsed.",
           &ServerReading::num_host_adapters);
  AddLevel("tenon_host_adapter_bytes", "Bytes of these files.", &ServerReading::host_adapter_bytes);
  AddLevel("tenon_host_adapter_budget_bytes", "Bytes that these files may take.",
           &ServerReading::host_adapter_budget_bytes);
  AddTotal("tenon_host_adapter_hits_total", "Loads that had to compile only.",
           &ServerReading::total_host_hits);
  AddTotal("tenon_host_adapter_misses_total", "Loads that had to read, check and parse as well.",
           &ServerReading::total_host_misses);
  AddLevel("tenon_merged_selections", "Adapters (or compositions) on weights of their own.",
           &ServerReading::num_merged);
  AddLevel("tenon_merged_bytes", "Bytes of merged weights.", &ServerReading::merged_bytes);
  AddLevel("tenon_merged_budget_bytes", "Bytes that merged weights may take.",
           &ServerReading::merged_budget_bytes);
  AddTotal("tenon_merges_total", "Adapters that were merged.", &ServerReading::total_merges);
  AddTotal("tenon_merge_failures_total", "Merges that failed or found no room.",
           &ServerReading::total_failed_merges);
  AddTotal("tenon_unmerges_total", "Merged weights that were dropped.",
           &ServerReading::total_unmerges);
  AddTotal("tenon_merged_tokens_total", "Prompt and generated tokens computed on merged weights.",
           &ServerReading::total_merged_tokens);
}

void ServerMetrics::AddAdapterMetrics() {
  AddLevel("tenon_adapters_live", "Adapter versions that requests may name.",
           &ServerReading::num_live_adapters);
  AddLevel("tenon_adapters_quarantined", "Adapter versions that are not served: damaged files.",
           &ServerReading::num_quarantined_adapters);
  AddLevel("tenon_adapters_resident", "Adapters whose tensors are in memory.",
           &ServerReading::num_resident_adapters);
  AddLevel("tenon_adapter_resident_bytes", "Bytes of resident adapters.",
           &ServerReading::resident_adapter_bytes);
  AddLevel("tenon_adapter_budget_bytes", "Bytes that resident adapters may take.",
           &ServerReading::adapter_budget_bytes);
  AddTotal("tenon_adapter_hits_total", "Requests whose adapter was resident.",
           &ServerReading::total_adapter_hits);
  AddTotal("tenon_adapter_loads_total", "Adapters read and compiled.",
           &ServerReading::total_adapter_loads);
  AddTotal("tenon_adapter_load_failures_total", "Adapters that could not be read or compiled.",
           &ServerReading::total_failed_adapter_loads);
  AddTotal("tenon_adapter_evictions_total", "Adapters dropped to make room.",
           &ServerReading::total_adapter_evictions);
  uploads_ = &prometheus::BuildCounter()
                  .Name("tenon_uploads_total")
                  .Help("Finished uploads by status code.")
                  .Register(registry_);
  upload_bytes_ = &prometheus::BuildCounter()
                       .Name("tenon_upload_bytes_total")
                       .Help("Bytes of the uploads that were stored.")
                       .Register(registry_)
                       .Add({});
  adapters_info_ = &prometheus::BuildGauge()
                        .Name("vllm:lora_requests_info")
                        .Help("Which adapters run and wait; the value is the time of the reading.")
                        .Register(registry_);
}

void ServerMetrics::AddTenants() {
  tenant_requests_ = &prometheus::BuildCounter()
                          .Name("tenon_tenant_requests_total")
                          .Help("Generation requests that ended, by tenant.")
                          .Register(registry_);
  tenant_tokens_ = &prometheus::BuildCounter()
                        .Name("tenon_tenant_tokens_total")
                        .Help(
                            "Tokens by tenant and kind: prompt, cached (part of prompt) or "
                            "generated.")
                        .Register(registry_);
  tenant_device_seconds_ = &prometheus::BuildCounter()
                                .Name("tenon_tenant_device_seconds_total")
                                .Help("Time of steps, shared among their rows by cost, by tenant.")
                                .Register(registry_);
  quota_refusals_ = &prometheus::BuildCounter()
                         .Name("tenon_quota_refusals_total")
                         .Help("Requests that a quota refused, by tenant and limit.")
                         .Register(registry_);
  AddLevel("tenon_store_current", "0 when the shared store was not reached at the last look.",
           &ServerReading::store_current);
  AddLevel("tenon_store_generation",
           "Changes of the shared catalogue that are served here; equal on replicas in step.",
           &ServerReading::store_generation);
  AddLevel("tenon_token_keys_current", "0 when the JWKS file is bad and the last good one holds.",
           &ServerReading::token_keys_current);
}

std::string ServerMetrics::TenantLabel(absl::string_view tenant) {
  absl::MutexLock lock(&tenants_mutex_);
  if (tenants_.contains(tenant)) {
    return std::string(tenant);
  }
  if (tenants_.size() == kMaxTenantLabels) {
    return "other";
  }
  tenants_.emplace(tenant);
  return std::string(tenant);
}

void ServerMetrics::RecordTenant(absl::string_view tenant, const TenantUse& use) {
  const std::string label = TenantLabel(tenant);
  tenant_requests_->Add({{"tenant", label}}).Increment();
  tenant_tokens_->Add({{"tenant", label}, {"kind", "prompt"}})
      .Increment(static_cast<double>(use.prompt_tokens));
  tenant_tokens_->Add({{"tenant", label}, {"kind", "cached"}})
      .Increment(static_cast<double>(use.cached_prompt_tokens));
  tenant_tokens_->Add({{"tenant", label}, {"kind", "generated"}})
      .Increment(static_cast<double>(use.generated_tokens));
  tenant_device_seconds_->Add({{"tenant", label}}).Increment(use.device_seconds);
}

void ServerMetrics::RecordQuotaRefusal(absl::string_view tenant, absl::string_view reason) {
  quota_refusals_->Add({{"tenant", TenantLabel(tenant)}, {"limit", std::string(reason)}})
      .Increment();
}

void ServerMetrics::AddLatencies() {
  end_to_end_ = AddHistogram("tenon_request_seconds",
                             "Generation calls from arrival to the last message.", kLatencyBounds);
  time_to_first_token_ = AddHistogram("tenon_time_to_first_token_seconds",
                                      "From arrival to the first token.", kLatencyBounds);
  time_per_output_token_ =
      AddHistogram("tenon_inter_token_seconds",
                   "Mean time between tokens of a sample, after its first.", kTokenBounds);
  queue_ = AddHistogram("tenon_queue_seconds", "Waiting for a place in the batch.", kLatencyBounds);
  adapter_wait_ = AddHistogram("tenon_adapter_wait_seconds",
                               "Waiting for the adapter to become resident.", kLatencyBounds);
}

prometheus::Histogram* ServerMetrics::AddHistogram(const std::string& name, const std::string& help,
                                                   const std::vector<double>& bounds) {
  return &prometheus::BuildHistogram().Name(name).Help(help).Register(registry_).Add({}, bounds);
}

void ServerMetrics::AddLevel(const std::string& name, const std::string& help,
                             int64_t ServerReading::* field) {
  levels_.push_back(
      {&prometheus::BuildGauge().Name(name).Help(help).Register(registry_).Add({}), field});
}

void ServerMetrics::AddTotal(const std::string& name, const std::string& help,
                             int64_t ServerReading::* field) {
  totals_.push_back(
      {&prometheus::BuildCounter().Name(name).Help(help).Register(registry_).Add({}), field});
}

void ServerMetrics::RecordCall(absl::string_view method, absl::string_view outcome) {
  calls_->Add({{"method", std::string(method)}, {"outcome", std::string(outcome)}}).Increment();
}

void ServerMetrics::RecordRefusal(absl::string_view reason) {
  refusals_->Add({{"reason", std::string(reason)}}).Increment();
}

void ServerMetrics::RecordGeneration(const GenerationTimes& times) {
  queue_->Observe(ToSeconds(times.queue));
  adapter_wait_->Observe(ToSeconds(times.adapter_wait));
  time_to_first_token_->Observe(ToSeconds(times.queue + times.adapter_wait + times.prefill));
  if (times.num_generated_tokens > 1) {
    time_per_output_token_->Observe(ToSeconds(times.decode) /
                                    static_cast<double>(times.num_generated_tokens - 1));
  }
}

void ServerMetrics::RecordUpload(absl::string_view outcome, int64_t stored_bytes) {
  uploads_->Add({{"outcome", std::string(outcome)}}).Increment();
  upload_bytes_->Increment(static_cast<double>(stored_bytes));
}

void ServerMetrics::TakeOver(const ServerReading& reading) {
  for (const Level& level : levels_) {
    level.gauge->Set(static_cast<double>(reading.*level.field));
  }
  for (const Total& total : totals_) {
    const double grown = static_cast<double>(reading.*total.field) - total.counter->Value();
    total.counter->Increment(std::max(grown, 0.0));
  }
  kv_usage_->Set(reading.kv_blocks_total == 0 ? 0.0
                                              : static_cast<double>(reading.kv_blocks_used) /
                                                    static_cast<double>(reading.kv_blocks_total));
}

// The gateway takes the series with the largest value, so that old label sets would only cost
// memory and a scrape's length: the one of the last reading is removed.
void ServerMetrics::PublishAdapters(const ServerReading& reading) {
  prometheus::Gauge& series = adapters_info_->Add(
      {{"max_lora", max_adapters_},
       {"running_lora_adapters", absl::StrJoin(reading.running_adapters, ",")},
       {"waiting_lora_adapters", absl::StrJoin(reading.waiting_adapters, ",")}});
  if (adapters_series_ != nullptr && adapters_series_ != &series) {
    adapters_info_->Remove(adapters_series_);
  }
  adapters_series_ = &series;
  series.Set(absl::ToDoubleSeconds(clock_() - absl::UnixEpoch()));
}

std::string ServerMetrics::Render(const ServerReading& reading) {
  absl::MutexLock lock(&mutex_);
  TakeOver(reading);
  PublishAdapters(reading);
  return prometheus::TextSerializer().Serialize(registry_.Collect());
}

}  // namespace tenon
