#include "server/app.h"


#include <algorithm>
#include <atomic>
#include <filesystem>
#include <utility>
#include <vector>

#include "absl/random/random.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/synchronization/notification.h"
#include "absl/time/clock.h"
#include "adapters/base/status_macros.h"
#include "adapters/kernels/device.h"
#include "adapters/kernels/parallel.h"
#include "adapters/registry/adapter_registry.h"
#include "adapters/residency/adapter_cache.h"
#include "adapters/residency/adapter_publisher.h"
#include "adapters/residency/host_tier.h"
#include "adapters/store/adapter_versions.h"
#include "adapters/store/catalogue_poll.h"
#include "server/access.h"
#include "server/adapter_meter.h"
#include "server/adapter_storage.h"
#include "server/engine/engine.h"
#include "server/engine/merge_tier.h"
#include "server/engine/text_generation.h"
#include "server/http/http_server.h"
#include "server/memory_budget.h"
#include "server/model/decoder_runner.h"
#include "server/model/kv_cache.h"
#include "server/model/model.h"
#include "server/rpc/adapter_service.h"
#include "server/rpc/generation_service.h"
#include "server/rpc/placements.h"
#include "server/rpc/residency_service.h"
#include "server/rpc/server.h"
#include "server/rpc/tenant_service.h"
#include "server/telemetry/logging.h"
#include "server/telemetry/metrics.h"
#include "server/tokenizer/tokenizer.h"
#include "server/version.h"

namespace tenon {
namespace {

// How long answers that are complete may take to leave after the last step.
constexpr absl::Duration kFlushTime = absl::Seconds(2);

absl::StatusOr<ModelOptions> MakeModelOptions(const ServerConfig& config) {
  ModelOptions options;
  if (config.dtype == "fp32") {
    options.dtype = at::kFloat;
  } else if (config.dtype == "bf16") {
    options.dtype = at::kBFloat16;
  }
  if (config.quantization == "int8") {
    options.weights = WeightFormat::kInt8;
  }
  TENON_RETURN_IF_ERROR(SelectDevice(config.device, options));
  return options;
}

int64_t ContextTokens(const ServerConfig& config, const ModelConfig& model) {
  return config.max_context_tokens == 0
             ? model.max_position_embeddings
             : std::min(config.max_context_tokens, model.max_position_embeddings);
}

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

std::string AdminAddress(const ServerConfig& config) {
  if (!config.admin_listen.empty()) {
    return config.admin_listen;
  }
  std::error_code error;
  return absl::StrCat("unix:", std::filesystem::absolute(LocalFolder(config), error).string(),
                      "/admin.sock");
}

void LogMerge(const MergeEvent& event) {
  LogLine line(event.status.ok() ? LogLevel::kInfo : LogLevel::kWarning, "adapter_merge");
  line.Add("adapter", absl::string_view(event.adapters)).Add("bytes", event.nbytes);
  line.Add("elapsed_ms", absl::ToDoubleMilliseconds(event.took));
  if (!event.status.ok()) {
    line.Add("error", event.status.message());
  }
}

uint64_t DrawRandomBits() {
  thread_local absl::BitGen generator;
  return absl::Uniform<uint64_t>(generator);
}

}  // namespace

// In the order of construction; destroyed from the end, so that nobody outlives what he uses.
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
  // Set once, when the tenants are known; read by loaders, which may be there before.
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

  absl::Status LoadBase();
  absl::Status OpenAdapters();
  absl::Status StartEngine();
  void StartMeter();
  void MakeServices();
  absl::Status StartListeners();
  absl::Status DeleteAdaptersOf(absl::string_view tenant);
  absl::Status WarmUp();
  void Serve();

  AdapterLimits MakeAdapterLimits() const;
  v1::GetModelResponse DescribeModel() const;
  RequestLimits MakeRequestLimits() const;
  CallEnvironment MakeCallEnvironment();
  ServerReading Read() const;
  void ReadTiers(const AdapterCacheStats& device, ServerReading& reading) const;
};

absl::Status App::Parts::LoadBase() {
  if (config.threads > 0) {
    SetNumKernelThreads(config.threads);
  }
  TENON_ASSIGN_OR_RETURN(const ModelOptions options, MakeModelOptions(config));
  TENON_ASSIGN_OR_RETURN(model, LoadModel(config.model, options));
  TENON_ASSIGN_OR_RETURN(tokenizer, Tokenizer::Load(config.model));
  dtype = model.dtype == at::kBFloat16 ? "bf16" : "fp32";
  max_context_tokens = ContextTokens(config, model.config);
  LogLine(LogLevel::kInfo, "model_loaded")
      .Add("model", absl::string_view(config.model))
      .Add("type", absl::string_view(model.config.model_type))
      .Add("dtype", absl::string_view(dtype))
      .Add("device", absl::string_view(model.device.str()))
      .Add("quantization", absl::string_view(config.quantization))
      .Add("digest", absl::string_view(model.base.digest))
      .Add("parameters", model.decoder->num_parameters());
  return absl::OkStatus();
}

AdapterLimits App::Parts::MakeAdapterLimits() const {
  AdapterLimits limits;
  limits.max_upload_bytes = config.max_upload_bytes;
  limits.max_rank = config.max_adapter_rank;
  limits.max_tensors = config.max_adapter_tensors;
  limits.max_header_bytes = config.max_adapter_header_bytes;
  limits.max_virtual_tokens = config.max_virtual_tokens;
  limits.max_bottleneck_width = config.max_bottleneck_width;
  limits.max_override_bytes = config.max_override_bytes;
  limits.max_adapters_per_tenant = config.max_adapters;
  return limits;
}

absl::Status App::Parts::OpenAdapters() {
  TENON_ASSIGN_OR_RETURN(store, OpenAdapterStore(config));
  AdapterPublisher::Options options;
  options.limits = MakeAdapterLimits();
  options.base = model.base;
  options.bf16 = model.dtype == at::kBFloat16;
  versions = std::make_unique<AdapterVersions>(store.get(), &registry,
                                               options.limits.max_adapters_per_tenant);
  publisher = std::make_unique<AdapterPublisher>(std::move(options), versions.get());
  host_tier = std::make_unique<HostTier>(config.adapter_host_bytes);
  publisher->set_host_tier(host_tier.get());
  cache = std::make_unique<AdapterCache>(
      config.adapter_device_bytes,
      [this](const AdapterInfo& info) {
        if (AdapterMeter* const counter = meter.load(); counter != nullptr) {
          counter->CountLoad(info.id);
        }
        return publisher->Compile(info);
      });
  publisher->set_cache(cache.get());
  MergeTier::Options merge_options;
  merge_options.budget_bytes = config.merged_bytes;
  merge_options.on_merge = LogMerge;
  merge_tier = std::make_unique<MergeTier>(merge_options, model.decoder, cache.get());
  cache->set_on_forget([this](const std::string& digest) { merge_tier->Forget(digest); });
  TENON_RETURN_IF_ERROR(versions->Restore());
  LogLine(LogLevel::kInfo, "adapters_restored")
      .Add("store", absl::string_view(config.store))
      .Add("live", registry.num_live());
  return absl::OkStatus();
}

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

absl::Status App::Parts::StartEngine() {
  const int64_t block_bytes =
      KvCache::BytesPerBlock(model.config, config.kv_block_size, model.dtype);
  const int64_t blocks_per_context =
      (max_context_tokens + config.kv_block_size - 1) / config.kv_block_size;
  const int64_t kv_bytes =
      config.kv_cache_bytes > 0
          ? config.kv_cache_bytes
          : ChooseKvCacheBytes(model.device.is_cpu() ? AvailableMemoryBytes()
                                                      : FreeDeviceBytes(model.device),
                               config.max_sequences * blocks_per_context * block_bytes);
  EngineOptions options;
  options.kv_block_size = config.kv_block_size;
  options.kv_num_blocks =
      KvCache::NumBlocks(model.config, config.kv_block_size, model.dtype, kv_bytes);
  if (options.kv_num_blocks == 0) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "a KV cache of ", kv_bytes, " bytes does not hold one block of ", block_bytes, " bytes"));
  }
  TENON_ASSIGN_OR_RETURN(std::unique_ptr<DecoderRunner> runner,
                         DecoderRunner::Create(model.decoder, options.kv_num_blocks,
                                               config.kv_block_size, max_context_tokens));
  options.max_queued_sequences = config.max_queued;
  options.merge_tier = merge_tier.get();
  options.scheduler.max_batch_tokens = config.max_batch_tokens;
  options.scheduler.prefill_chunk_tokens = config.prefill_chunk_tokens;
  options.scheduler.max_sequences = config.max_sequences;
  options.scheduler.max_context_tokens = max_context_tokens;
  options.scheduler.cache_salt = absl::StrCat(model.base.digest, " ", dtype, " ", config.quantization);
  options.scheduler.prefix_cache = runner->prefix_sharing_is_exact();
  options.scheduler.share_base_prefixes = config.share_base_prefixes;
  options.scheduler.fair = config.fair_shares;
  batch_invariant = runner->is_batch_invariant();
  if (config.deterministic && !batch_invariant) {
    return absl::FailedPreconditionError(
        "--deterministic: this configuration computes with reference kernels, whose results depend "
        "on what else is in the batch");
  }
  if (config.poison_freed_kv) {
    runner->set_poison_freed_blocks(true);
  }
  TENON_ASSIGN_OR_RETURN(
      engine, Engine::Create(options, std::move(runner), cache.get(), [] { return absl::Now(); }));
  LogLine(LogLevel::kInfo, "memory_plan")
      .Add("device", absl::string_view(model.device.str()))
      .Add("weight_bytes", model.decoder->nbytes())
      .Add("kv_blocks", options.kv_num_blocks)
      .Add("kv_bytes", options.kv_num_blocks * block_bytes)
      .Add("adapter_bytes", config.adapter_device_bytes)
      .Add("merged_bytes", config.merged_bytes)
      .Add("context_tokens", max_context_tokens);
  TextGenerator::Options text_options;
  text_options.max_context_tokens = max_context_tokens;
  generator =
      std::make_unique<TextGenerator>(text_options, tokenizer.get(), &registry, engine.get());
  return absl::OkStatus();
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

void App::Parts::MakeServices() {
  ServerFacts facts;
  facts.version = kVersion;
  facts.model = ServedName(config);
  facts.dtype = dtype;
  facts.device = model.device.str();
  facts.max_adapters_per_step = config.max_sequences;
  facts.kv_block_size = config.kv_block_size;
  metrics = std::make_unique<ServerMetrics>(facts, [] { return absl::Now(); });

  GenerationBackend generation;
  generation.generator = generator.get();
  generation.tokenizer = tokenizer.get();
  generation.limits = MakeRequestLimits();
  generation.model = DescribeModel();
  generation_service =
      std::make_unique<GenerationService>(std::move(generation), MakeCallEnvironment());
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

ServerReading App::Parts::Read() const {
  const EngineStats engine_stats = engine->stats();
  const AdapterCacheStats cache_stats = cache->stats();
  ServerReading reading;
  reading.num_running = engine_stats.num_running;
  reading.num_waiting = engine_stats.num_waiting;
  reading.kv_blocks_used = engine_stats.kv_blocks_used;
  reading.kv_blocks_cached = engine_stats.kv_blocks_cached;
  reading.kv_blocks_total = engine_stats.kv_blocks_total;
  reading.total_steps = engine_stats.num_steps;
  reading.total_preemptions = engine_stats.num_preemptions;
  reading.total_prompt_tokens = engine_stats.prompt_tokens;
  reading.total_cached_prompt_tokens = engine_stats.cached_prompt_tokens;
  reading.total_generated_tokens = engine_stats.generated_tokens;
  reading.total_merged_tokens = engine_stats.merged_tokens;
  reading.num_live_adapters = registry.num_live();
  reading.num_quarantined_adapters = registry.num_quarantined();
  const StoreStatus store_status = store->status();
  reading.store_current = store_status.current ? 1 : 0;
  reading.store_generation = store_status.generation;
  reading.num_resident_adapters = cache_stats.num_resident;
  reading.resident_adapter_bytes = cache_stats.resident_bytes;
  reading.adapter_budget_bytes = cache_stats.budget_bytes;
  reading.total_adapter_hits = cache_stats.hits;
  reading.total_adapter_loads = cache_stats.loads;
  reading.total_failed_adapter_loads = cache_stats.failed_loads;
  reading.total_adapter_evictions = cache_stats.evictions;
  ReadTiers(cache_stats, reading);
  reading.token_keys_current = access->keys_are_current() ? 1 : 0;
  reading.running_adapters = ClientNames(engine_stats.running_adapters);
  reading.waiting_adapters = ClientNames(engine_stats.waiting_adapters);
  return reading;
}

void App::Parts::ReadTiers(const AdapterCacheStats& device, ServerReading& reading) const {
  const HostTierStats host = host_tier->stats();
  const MergeTierStats merged = merge_tier->stats();
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

// One token through the whole engine: readiness means that a request would be answered.
absl::Status App::Parts::WarmUp() {
  auto stream = std::make_shared<TokenStream>(/*capacity=*/4);
  absl::Notification finished;
  absl::Status status;
  stream->set_on_readable([&, raw = stream.get()] {
    while (std::optional<GenerationEvent> event = raw->Pop()) {
      if (const auto* finish = std::get_if<FinishEvent>(&*event)) {
        status = finish->status;
        finished.Notify();
      }
    }
  });
  GenerationRequest request;
  request.request_id = "warm-up";
  request.tenant = std::string(kDefaultTenant);
  request.prompt = {0};
  request.selection = std::make_shared<const AdapterSelection>();
  request.sampling.temperature = 0;
  request.sampling.max_tokens = 1;
  request.stream = stream;
  TENON_RETURN_IF_ERROR(engine->Submit(std::move(request)));
  finished.WaitForNotification();
  return status;
}

// A catalogue that could not be reached at start is served as far as it is cached: generation is
// SERVING, the adapters and the server as a whole are when a look has succeeded.
void App::Parts::Serve() {
  rpc->SetServing(true);
  admin_rpc->SetServing(true);
  ready = true;
  if (!IsObjectStore(config)) {
    return;
  }
  const auto show = [this](bool reached) {
    rpc->SetServing("", reached);
    rpc->SetServing(v1::AdapterService::service_full_name(), reached);
  };
  show(store->status().reached);
  poll = std::make_unique<CataloguePoll>(config.store_poll_interval, [this, show] {
    const absl::Status refreshed = versions->Refresh().status();
    if (refreshed.ok()) {
      show(store->status().reached);
    }
    return refreshed;
  });
}

absl::StatusOr<std::unique_ptr<App>> App::Start(const ServerConfig& config) {
  TENON_RETURN_IF_ERROR(SetLogLevel(config.log_level));
  auto parts = std::make_unique<Parts>();
  parts->config = config;
  TENON_RETURN_IF_ERROR(parts->LoadBase());
  TENON_RETURN_IF_ERROR(parts->OpenAdapters());
  TENON_RETURN_IF_ERROR(parts->StartEngine());
  TENON_ASSIGN_OR_RETURN(parts->access, Access::Open(config, [] { return absl::Now(); }));
  parts->StartMeter();
  parts->MakeServices();
  TENON_RETURN_IF_ERROR(parts->StartListeners());
  TENON_RETURN_IF_ERROR(parts->WarmUp());
  parts->Serve();
  return std::unique_ptr<App>(new App(std::move(parts)));
}

App::App(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}

App::~App() = default;

void App::Drain(absl::Time deadline) {
  parts_->poll.reset();  // it would say SERVING again
  parts_->ready = false;
  parts_->rpc->SetServing(false);
  parts_->admin_rpc->SetServing(false);
  parts_->adapter_service->Drain();
  parts_->engine->Drain(deadline);
  parts_->engine->Stop();
  const absl::Time last = std::min(absl::Now() + kFlushTime, deadline + kFlushTime);
  parts_->admin_rpc->Shutdown(last);
  parts_->rpc->Shutdown(last);
}

const std::string& App::rpc_address() const { return parts_->rpc->address(); }

const std::string& App::admin_address() const { return parts_->admin_rpc->address(); }

std::string App::http_address() const {
  const std::string& address = parts_->config.http_listen;
  return absl::StrCat(address.substr(0, address.rfind(':')), ":", parts_->http->port());
}

}  // namespace tenon
