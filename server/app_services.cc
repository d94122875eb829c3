// App: the services and the listeners.
#include <algorithm>
#include <filesystem>
#include <utility>
#include <vector>

#include "absl/random/random.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "adapters/base/status_macros.h"
#include "server/app_parts.h"
#include "server/rpc/placements.h"
#include "server/server_reading.h"
#include "server/version.h"

namespace tenon {
namespace {

std::string ServedName(const ServerConfig& config) {
  if (!config.model_name.empty()) {
    return config.model_name;
  }
  std::error_code error;
  return std::filesystem::weakly_canonical(config.model, error).filename().string();
}

// What the authors' file says, with the API's defaults where it is silent.
SamplingDefaults MakeSamplingDefaults(const Model& model) {
  const GenerationConfig& from = model.generation;
  SamplingDefaults defaults;
  defaults.temperature = from.temperature.value_or(defaults.temperature);
  defaults.top_k = from.top_k.value_or(defaults.top_k);
  defaults.top_p = from.top_p.value_or(defaults.top_p);
  defaults.min_p = from.min_p.value_or(defaults.min_p);
  defaults.repetition_penalty = from.repetition_penalty.value_or(defaults.repetition_penalty);
  if (from.do_sample == false) {
    defaults.temperature = 0.0f;
  }
  defaults.eos_token_ids = model.eos_token_ids();
  return defaults;
}

std::string AdminAddress(const ServerConfig& config) {
  if (!config.admin_listen.empty()) {
    return config.admin_listen;
  }
  std::error_code error;
  return absl::StrCat("unix:", std::filesystem::absolute(LocalFolder(config), error).string(),
                      "/admin.sock");
}

uint64_t DrawRandomBits() {
  thread_local absl::BitGen generator;
  return absl::Uniform<uint64_t>(generator);
}

}  // namespace

void App::Parts::StartMeter() {
  AdapterMeter::Sources sources;
  sources.clock = [] { return absl::Now(); };
  sources.tenants = [directory = access->directory()] {
    std::vector<std::string> names;
    for (const TenantRecord& tenant : directory->List()) {
      names.push_back(tenant.name);
    }
    return names;
  };
  sources.registry = &registry;
  sources.resident_bytes = [this] { return cache->resident_bytes(); };
  owned_meter = std::make_unique<AdapterMeter>(std::move(sources));
  meter = owned_meter.get();
  access->usage()->set_before_flush(
      [counter = owned_meter.get()](UsageLedger& ledger) { counter->AddTo(ledger); });
}

v1::GetModelResponse App::Parts::DescribeModel() const {
  v1::GetModelResponse response;
  response.set_name(ServedName(config));
  response.set_model_type(model.config.model_type);
  response.set_digest(model.base.digest);
  response.set_dtype(dtype);
  response.set_quantization(config.quantization);
  response.set_device(model.device.str());
  response.set_num_parameters(model.decoder->num_parameters());
  response.set_vocab_size(static_cast<int32_t>(model.config.vocab_size));
  response.set_max_context_tokens(static_cast<int32_t>(max_context_tokens));
  response.set_max_adapter_rank(static_cast<int32_t>(config.max_adapter_rank));
  response.set_max_adapter_bytes(config.max_upload_bytes);
  response.set_has_chat_template(tokenizer->has_chat_template());
  response.set_server_version(kVersion);
  return response;
}

RequestLimits App::Parts::MakeRequestLimits() const {
  RequestLimits limits;
  limits.vocab_size = static_cast<int32_t>(model.config.vocab_size);
  limits.max_context_tokens = static_cast<int32_t>(max_context_tokens);
  limits.defaults = MakeSamplingDefaults(model);
  limits.batch_invariant = batch_invariant;
  limits.always_deterministic = config.deterministic;
  return limits;
}

CallEnvironment App::Parts::MakeCallEnvironment() {
  CallEnvironment environment;
  environment.metrics = metrics.get();
  environment.clock = [] { return absl::Now(); };
  environment.draw = DrawRandomBits;
  environment.authenticator = access->authenticator();
  environment.proxies = *TrustedProxies::Parse(config.trusted_proxies);  // checked with the flags
  environment.quotas = access->quotas();
  environment.usage = access->usage();
  environment.directory = access->directory();
  return environment;
}

absl::Status App::Parts::DeleteAdaptersOf(absl::string_view tenant) {
  for (const std::shared_ptr<const AdapterName>& name : registry.Set(tenant).names) {
    TENON_RETURN_IF_ERROR(
        versions->Delete(tenant, {name->name}, /*force=*/true, "server").status());
  }
  return absl::OkStatus();
}

ServerFacts App::Parts::MakeFacts() const {
  ServerFacts facts;
  facts.version = kVersion;
  facts.model = ServedName(config);
  facts.dtype = dtype;
  facts.device = model.device.str();
  facts.max_adapters_per_step = config.max_sequences;
  facts.kv_block_size = config.kv_block_size;
  return facts;
}

void App::Parts::MakeGenerationService() {
  GenerationBackend generation;
  generation.generator = generator.get();
  generation.tokenizer = tokenizer.get();
  generation.limits = MakeRequestLimits();
  generation.model = DescribeModel();
  generation_service =
      std::make_unique<GenerationService>(std::move(generation), MakeCallEnvironment());
}

void App::Parts::MakeAdapterService() {
  AdapterBackend adapters;
  adapters.publisher = publisher.get();
  adapters.versions = versions.get();
  adapters.registry = &registry;
  adapters.cache = cache.get();
  adapters.acceptance.engine = engine.get();
  adapters.acceptance.tokenizer = tokenizer.get();
  adapters.acceptance.clock = [] { return absl::Now(); };
  adapters.limits = MakeRequestLimits();
  adapters.directory = access->directory();
  adapters.max_concurrent_uploads = config.max_concurrent_uploads;
  adapter_service = std::make_unique<AdapterService>(adapters, MakeCallEnvironment());
}

void App::Parts::MakeResidencyService() {
  ResidencyBackend residency;
  residency.registry = &registry;
  residency.tiers = {merge_tier.get(), cache.get(), host_tier.get()};
  residency.wake_engine = [this] { engine->Wake(); };
  residency.pinned_limit = [this](absl::string_view tenant) {
    return access->directory()->LimitsOf(tenant).pinned_bytes;
  };
  residency.directory = access->directory();
  RestorePlacements(*residency.directory, registry, residency.tiers, store->status().reached);
  residency_service =
      std::make_unique<ResidencyService>(std::move(residency), MakeCallEnvironment());
}

void App::Parts::MakeTenantService() {
  TenantBackend tenants;
  tenants.directory = access->directory();
  tenants.count_adapters = [this](absl::string_view tenant) {
    const std::vector<AdapterStatus> all = registry.List(tenant);
    return std::count_if(all.begin(), all.end(), [](const AdapterStatus& status) {
      return status.state == AdapterState::kLive;
    });
  };
  tenants.delete_adapters = [this](absl::string_view tenant) { return DeleteAdaptersOf(tenant); };
  tenants.usage = [this](absl::string_view tenant) { return access->usage()->Read(tenant); };
  tenant_service = std::make_unique<TenantService>(std::move(tenants), MakeCallEnvironment());
}

void App::Parts::MakeServices() {
  metrics = std::make_unique<ServerMetrics>(MakeFacts(), [] { return absl::Now(); });
  MakeGenerationService();
  MakeAdapterService();
  MakeResidencyService();
  MakeTenantService();
}

ServerReading App::Parts::Read() const {
  ServerReading reading;
  ReadEngine(engine->stats(), reading);
  ReadTiers(merge_tier->stats(), cache->stats(), host_tier->stats(), reading);
  reading.num_live_adapters = registry.num_live();
  reading.num_quarantined_adapters = registry.num_quarantined();
  const StoreStatus store_status = store->status();
  reading.store_current = store_status.current ? 1 : 0;
  reading.store_generation = store_status.generation;
  reading.token_keys_current = access->keys_are_current() ? 1 : 0;
  return reading;
}

absl::Status App::Parts::StartListeners() {
  RpcServerOptions rpc_options;
  rpc_options.address = config.listen;
  rpc_options.tls = {config.tls_certificate_file, config.tls_key_file, config.tls_client_ca_file};
  rpc_options.max_connection_idle = config.max_connection_idle;
  rpc_options.max_connection_age = config.max_connection_age;
  rpc_options.health_names = {v1::GenerationService::service_full_name(),
                              v1::AdapterService::service_full_name(),
                              v1::ResidencyService::service_full_name()};
  TENON_ASSIGN_OR_RETURN(
      rpc, RpcServer::Start(rpc_options, {generation_service.get(), adapter_service.get(),
                                          residency_service.get()}));
  RpcServerOptions admin_options = rpc_options;
  admin_options.address = AdminAddress(config);
  admin_options.health_names = {v1::TenantService::service_full_name()};
  if (IsLocalAddress(admin_options.address)) {
    admin_options.tls = {};  // nobody else sees it
  }
  TENON_ASSIGN_OR_RETURN(admin_rpc, RpcServer::Start(admin_options, {tenant_service.get()}));
  HttpServer::Sources sources;
  sources.metrics = [this] { return metrics->Render(Read()); };
  sources.ready = [this] { return ready.load() && store->status().reached; };
  TENON_ASSIGN_OR_RETURN(http, HttpServer::Start(config.http_listen, std::move(sources)));
  return absl::OkStatus();
}

}  // namespace tenon
