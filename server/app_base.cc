// App: the model, the adapters and the engine that runs them.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "adapters/base/status_macros.h"
#include "adapters/kernels/device.h"
#include "adapters/kernels/parallel.h"
#include "server/app_parts.h"
#include "server/memory_budget.h"
#include "server/model/kv_cache.h"
#include "server/telemetry/logging.h"

namespace tenon {
namespace {

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
  options.num_ranks = config.tensor_parallel_size;
  TENON_RETURN_IF_ERROR(SelectDevice(config.device, options));
  return options;
}

int64_t ContextTokens(const ServerConfig& config, const ModelConfig& model) {
  return config.max_context_tokens == 0
             ? model.max_position_embeddings
             : std::min(config.max_context_tokens, model.max_position_embeddings);
}

AdapterLimits MakeAdapterLimits(const ServerConfig& config) {
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

void LogMerge(const MergeEvent& event) {
  LogLine line(event.status.ok() ? LogLevel::kInfo : LogLevel::kWarning, "adapter_merge");
  line.Add("adapter", absl::string_view(event.adapters)).Add("bytes", event.nbytes);
  line.Add("elapsed_ms", absl::ToDoubleMilliseconds(event.took));
  if (!event.status.ok()) {
    line.Add("error", event.status.message());
  }
}

}  // namespace

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

absl::Status App::Parts::OpenAdapters() {
  TENON_ASSIGN_OR_RETURN(store, OpenAdapterStore(config));
  AdapterPublisher::Options options;
  options.limits = MakeAdapterLimits(config);
  options.base = model.base;
  options.bf16 = model.dtype == at::kBFloat16;
  versions = std::make_unique<AdapterVersions>(store.get(), &registry,
                                               options.limits.max_adapters_per_tenant);
  publisher = std::make_unique<AdapterPublisher>(std::move(options), versions.get());
  host_tier = std::make_unique<HostTier>(config.adapter_host_bytes);
  publisher->set_host_tier(host_tier.get());
  MakeCache();
  TENON_RETURN_IF_ERROR(versions->Restore());
  LogLine(LogLevel::kInfo, "adapters_restored")
      .Add("store", absl::string_view(config.store))
      .Add("live", registry.num_live());
  return absl::OkStatus();
}

void App::Parts::MakeCache() {
  cache =
      std::make_unique<AdapterCache>(config.adapter_device_bytes, [this](const AdapterInfo& info) {
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
}

int64_t App::Parts::ChooseKvBytes(int64_t block_bytes) const {
  if (config.kv_cache_bytes > 0) {
    return config.kv_cache_bytes;
  }
  const int64_t blocks_per_context =
      (max_context_tokens + config.kv_block_size - 1) / config.kv_block_size;
  return ChooseKvCacheBytes(
      model.device.is_cpu() ? AvailableMemoryBytes() : FreeDeviceBytes(model.device),
      config.max_sequences * blocks_per_context * block_bytes);
}

EngineOptions App::Parts::MakeEngineOptions(int64_t num_kv_blocks,
                                            const TensorParallelRunner& runner) const {
  EngineOptions options;
  options.kv_block_size = config.kv_block_size;
  options.kv_num_blocks = num_kv_blocks;
  options.max_queued_sequences = config.max_queued;
  options.merge_tier = merge_tier.get();
  options.scheduler.max_batch_tokens = config.max_batch_tokens;
  options.scheduler.prefill_chunk_tokens = config.prefill_chunk_tokens;
  options.scheduler.max_sequences = config.max_sequences;
  options.scheduler.max_context_tokens = max_context_tokens;
  options.scheduler.cache_salt =
      absl::StrCat(model.base.digest, " ", dtype, " ", config.quantization);
  options.scheduler.prefix_cache = runner.prefix_sharing_is_exact();
  options.scheduler.share_base_prefixes = config.share_base_prefixes;
  options.scheduler.fair = config.fair_shares;
  return options;
}

void App::Parts::LogMemoryPlan(int64_t num_kv_blocks, int64_t block_bytes,
                               int64_t graph_bytes) const {
  LogLine(LogLevel::kInfo, "memory_plan")
      .Add("device", absl::string_view(model.device.str()))
      .Add("tensor_parallel_size", model.decoder->num_ranks())
      .Add("weight_bytes", model.decoder->nbytes())
      .Add("kv_blocks", num_kv_blocks)
      .Add("kv_bytes", num_kv_blocks * block_bytes)
      .Add("graph_bytes", graph_bytes)
      .Add("adapter_bytes", config.adapter_device_bytes)
      .Add("merged_bytes", config.merged_bytes)
      .Add("context_tokens", max_context_tokens);
}

absl::Status App::Parts::StartEngine() {
  const int64_t block_bytes =
      model.decoder->num_ranks() *
      KvCache::BytesPerBlock(model.decoder->config(), config.kv_block_size, model.dtype);
  const int64_t kv_bytes = ChooseKvBytes(block_bytes);
  const int64_t num_kv_blocks = kv_bytes / block_bytes;
  if (num_kv_blocks == 0) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "a KV cache of ", kv_bytes, " bytes does not hold one block of ", block_bytes, " bytes"));
  }
  TENON_ASSIGN_OR_RETURN(std::unique_ptr<TensorParallelRunner> runner,
                         TensorParallelRunner::Create(model.decoder, num_kv_blocks,
                                                      config.kv_block_size, max_context_tokens));
  batch_invariant = runner->is_batch_invariant();
  if (config.deterministic && !batch_invariant) {
    return absl::FailedPreconditionError(
        "--deterministic: this configuration computes with reference kernels, whose results depend "
        "on what else is in the batch");
  }
  if (config.poison_freed_kv) {
    runner->set_poison_freed_blocks(true);
  }
  if (!config.cuda_graphs) {
    runner->set_use_graphs(false);
  }
  int64_t graph_bytes = 0;
  if (DecodeGraphs* const graphs = runner->graphs(); graphs != nullptr) {
    graph_bytes = graphs->nbytes();
    graphs->set_on_problem([](const std::string& problem) {
      LogLine(LogLevel::kWarning, "cuda_graphs_off").Add("error", absl::string_view(problem));
    });
  }
  const EngineOptions options = MakeEngineOptions(num_kv_blocks, *runner);
  TENON_ASSIGN_OR_RETURN(
      engine, Engine::Create(options, std::move(runner), cache.get(), [] { return absl::Now(); }));
  LogMemoryPlan(num_kv_blocks, block_bytes, graph_bytes);
  TextGenerator::Options text_options;
  text_options.max_context_tokens = max_context_tokens;
  generator =
      std::make_unique<TextGenerator>(text_options, tokenizer.get(), &registry, engine.get());
  return absl::OkStatus();
}

}  // namespace tenon
