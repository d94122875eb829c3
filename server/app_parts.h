// App::Parts: what App owns. Seen by the files of App alone: app_base.cc makes what computes,
// app_services.cc what listens, app.cc starts and stops both.
#ifndef TENON_SERVER_APP_PARTS_H_
#define TENON_SERVER_APP_PARTS_H_

#include <atomic>
#include <memory>
#include <string>

#include "adapters/registry/adapter_registry.h"
#include "adapters/residency/adapter_cache.h"
#include "adapters/residency/adapter_publisher.h"
#include "adapters/residency/host_tier.h"
#include "adapters/store/adapter_versions.h"
#include "adapters/store/catalogue_poll.h"
#include "server/access.h"
#include "server/adapter_meter.h"
#include "server/adapter_storage.h"
#include "server/app.h"
#include "server/engine/engine.h"
#include "server/engine/merge_tier.h"
#include "server/engine/text_generation.h"
#include "server/http/http_server.h"
#include "server/model/model.h"
#include "server/model/tensor_parallel_runner.h"
#include "server/rpc/adapter_service.h"
#include "server/rpc/generation_service.h"
#include "server/rpc/residency_service.h"
#include "server/rpc/server.h"
#include "server/rpc/tenant_service.h"
#include "server/server_config.h"
#include "server/telemetry/metrics.h"
#include "server/tokenizer/tokenizer.h"

namespace tenon {

/// In the order of construction; destroyed from the end, so that nobody outlives what he uses.
struct App::Parts {
  ServerConfig config;
  std::string dtype;
  int64_t max_context_tokens = 0;
  bool batch_invariant = false;
  Model model;
  std::unique_ptr<Tokenizer> tokenizer;
  std::unique_ptr<AdapterStore> store;
  AdapterRegistry registry;
  std::unique_ptr<AdapterVersions> versions;
  std::unique_ptr<AdapterPublisher> publisher;
  /// Set once, when the tenants are known; read by loaders, which may be there before.
  std::atomic<AdapterMeter*> meter = nullptr;
  std::unique_ptr<AdapterMeter> owned_meter;
  std::unique_ptr<HostTier> host_tier;
  std::unique_ptr<AdapterCache> cache;
  std::unique_ptr<MergeTier> merge_tier;
  std::unique_ptr<Engine> engine;
  std::unique_ptr<TextGenerator> generator;
  std::unique_ptr<Access> access;
  std::unique_ptr<ServerMetrics> metrics;
  std::unique_ptr<GenerationService> generation_service;
  std::unique_ptr<AdapterService> adapter_service;
  std::unique_ptr<ResidencyService> residency_service;
  std::unique_ptr<TenantService> tenant_service;
  std::unique_ptr<RpcServer> rpc;
  std::unique_ptr<RpcServer> admin_rpc;
  std::atomic<bool> ready = false;
  std::unique_ptr<HttpServer> http;
  std::unique_ptr<CataloguePoll> poll;  // null for a store that nobody shares

  // --- app_base.cc: in this order ---
  absl::Status LoadBase();
  absl::Status OpenAdapters();
  absl::Status StartEngine();

  // --- app_services.cc: in this order, when `access` is there ---
  void StartMeter();
  void MakeServices();
  absl::Status StartListeners();

  // --- app.cc ---
  absl::Status WarmUp();
  void Serve();

 private:
  void MakeCache();
  int64_t ChooseKvBytes(int64_t block_bytes) const;
  EngineOptions MakeEngineOptions(int64_t num_kv_blocks, const TensorParallelRunner& runner) const;
  void LogMemoryPlan(int64_t num_kv_blocks, int64_t block_bytes, int64_t graph_bytes) const;

  ServerFacts MakeFacts() const;
  RequestLimits MakeRequestLimits() const;
  v1::GetModelResponse DescribeModel() const;
  CallEnvironment MakeCallEnvironment();
  void MakeGenerationService();
  void MakeAdapterService();
  void MakeResidencyService();
  void MakeTenantService();
  absl::Status DeleteAdaptersOf(absl::string_view tenant);
  ServerReading Read() const;
};

}  // namespace tenon

#endif  // TENON_SERVER_APP_PARTS_H_
