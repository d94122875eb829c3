#include "server/model/model.h"

#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>

#include <functional>
#include <future>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"
#include "adapters/kernels/device.h"
#include "server/model/decoder_loader.h"
#include "server/model/mapped_file.h"
#include "server/model/weights.h"

namespace tenon {
namespace {

constexpr int64_t kMaxConfigBytes = int64_t{1} << 20;

at::ScalarType DefaultDType(const ModelConfig& config) {
  return config.dtype == ModelDType::kBFloat16 ? at::kBFloat16 : at::kFloat;
}

absl::StatusOr<GenerationConfig> LoadGenerationConfig(const std::string& folder,
                                                      int64_t vocab_size) {
  const absl::StatusOr<std::string> text =
      ReadSmallFile(absl::StrCat(folder, "/generation_config.json"), kMaxConfigBytes);
  if (absl::IsNotFound(text.status())) {
    return GenerationConfig{};
  }
  TENON_RETURN_IF_ERROR(text.status());
  return ParseGenerationConfig(*text, vocab_size);
}

// Whether the checkpoint keeps the matrix of that name as [in, out].
bool IsTransposed(const ModelConfig& config, absl::string_view name) {
  return config.transposed_weights &&
         absl::StartsWith(name, absl::StrCat(config.modules.root, config.modules.layers, "."));
}

// BaseShape::read_parameter. The mapping stays for it, the pages that it touches do not.
std::function<absl::StatusOr<at::Tensor>(absl::string_view)> ParameterReader(
    std::shared_ptr<const Checkpoint> checkpoint, const ModelConfig& config) {
  const std::string root = CheckpointRoot(config, *checkpoint);
  return [checkpoint = std::move(checkpoint), config, root](absl::string_view name) {
    const ModulePaths& modules = config.modules;
    std::string stored(name);
    if (config.tie_word_embeddings && name == absl::StrCat(modules.head, ".weight")) {
      stored = absl::StrCat(root, modules.embeddings, ".weight");
    } else if (absl::StartsWith(name, modules.root)) {
      stored = absl::StrCat(root, name.substr(modules.root.size()));
    }
    absl::StatusOr<at::Tensor> parameter = checkpoint->Read(stored);
    checkpoint->DropPages();
    if (parameter.ok() && parameter->dim() == 2 && IsTransposed(config, name)) {
      return absl::StatusOr<at::Tensor>(parameter->t().contiguous());
    }
    return parameter;
  };
}

// May throw what LibTorch and the standard library throw.
absl::StatusOr<Model> Load(const std::string& folder, const ModelOptions& options) {
  const c10::InferenceMode inference_mode;
  TENON_ASSIGN_OR_RETURN(const std::string config_json,
                         ReadSmallFile(absl::StrCat(folder, "/config.json"), kMaxConfigBytes));
  Model model;
  TENON_ASSIGN_OR_RETURN(model.config, ParseModelConfig(config_json));
  TENON_ASSIGN_OR_RETURN(model.generation, LoadGenerationConfig(folder, model.config.vocab_size));
  model.dtype = options.dtype.value_or(DefaultDType(model.config));
  if (model.dtype != at::kFloat && model.dtype != at::kBFloat16) {
    return absl::InvalidArgumentError(
        absl::StrCat("dtype ", at::toString(model.dtype), ": want float32 or bfloat16"));
  }
  if (!options.device.is_cpu() && options.kernels == KernelKind::kCpu) {
    return absl::InvalidArgumentError(
        absl::StrCat("device ", options.device.str(), ": the CPU's kernels do not run there"));
  }
  if (!options.device.is_cpu() && options.num_ranks > 1) {
    return absl::FailedPreconditionError(
        absl::StrCat("tensor_parallel_size ", options.num_ranks, " on device ",
                     options.device.str(), ": tensor parallelism is implemented on the CPU only"));
  }
  TENON_ASSIGN_OR_RETURN(const std::shared_ptr<Checkpoint> checkpoint, Checkpoint::Open(folder));
  // The future's destructor waits, so the thread ends inside this function on every path.
  std::future<absl::StatusOr<std::string>> digest = std::async(
      std::launch::async,
      [checkpoint = checkpoint.get(), &config_json] { return checkpoint->Digest(config_json); });
  Decoder::Options decoder_options;
  decoder_options.dtype = model.dtype;
  decoder_options.kernels = options.kernels;
  decoder_options.device = model.device = options.device;
  decoder_options.weights = options.weights;
  decoder_options.num_ranks = options.num_ranks;
  TENON_ASSIGN_OR_RETURN(model.decoder,
                         Decoder::Create(model.config, decoder_options, *checkpoint));
  TENON_ASSIGN_OR_RETURN(std::string model_digest, digest.get());
  model.base = MakeBaseShape(model.config, std::move(model_digest));
  model.base.device = options.device;
  model.base.num_ranks = options.num_ranks;
  model.base.read_parameter = ParameterReader(checkpoint, model.config);
  return model;
}

absl::StatusOr<Model> LoadWithoutThrowing(const std::string& folder, const ModelOptions& options) {
  try {
    return Load(folder, options);
  } catch (const c10::Error& error) {
    return absl::InternalError(error.what_without_backtrace());
  } catch (const std::exception& error) {
    return absl::InternalError(error.what());
  }
}

}  // namespace

absl::Status SelectDevice(absl::string_view name, ModelOptions& options) {
  TENON_ASSIGN_OR_RETURN(options.device, OpenDevice(name));
  if (!options.device.is_cpu()) {
    TENON_ASSIGN_OR_RETURN(const std::string library, FindKernelLibrary());
    TENON_RETURN_IF_ERROR(OpenKernelLibrary(library));
    options.kernels = KernelKind::kCuda;
  }
  return absl::OkStatus();
}

BaseShape MakeBaseShape(const ModelConfig& config, std::string digest) {
  struct ModuleOfLayer {
    absl::string_view path;
    Site site;
    int64_t in_features;
    int64_t out_features;
  };
  const int64_t hidden = config.hidden_size, intermediate = config.intermediate_size;
  const ModulePaths& names = config.modules;
  const ModuleOfLayer kLayerModules[] = {
      {names.q, Site::kQ, hidden, config.q_size()},
      {names.k, Site::kK, hidden, config.kv_size()},
      {names.v, Site::kV, hidden, config.kv_size()},
      {names.qkv, Site::kQkv, hidden, config.q_size() + 2 * config.kv_size()},
      {names.o, Site::kO, config.q_size(), hidden},
      {names.gate, Site::kGate, hidden, intermediate},
      {names.up, Site::kUp, hidden, intermediate},
      {names.down, Site::kDown, intermediate, hidden},
      {names.attention_norm, Site::kAttentionNorm, hidden, hidden},
      {names.feed_forward_norm, Site::kFeedForwardNorm, hidden, hidden},
  };
  BaseShape base;
  base.model_type = config.model_type;
  base.digest = std::move(digest);
  base.num_layers = config.num_layers;
  base.hidden_size = hidden;
  base.vocab_size = config.vocab_size;
  base.num_kv_heads = config.num_kv_heads;
  base.head_dim = config.head_dim;
  base.max_context_tokens = config.max_position_embeddings;
  base.tied_embeddings = config.tie_word_embeddings;
  base.norm_eps = config.norm_eps;
  base.post_attention_norm = std::string(names.post_attention_norm);
  base.post_feed_forward_norm = std::string(names.post_feed_forward_norm);
  base.modules[absl::StrCat(names.root, names.embeddings)] = {0, Site::kEmbedding,
                                                              config.vocab_size, hidden};
  base.modules[absl::StrCat(names.root, names.final_norm)] = {0, Site::kFinalNorm, hidden, hidden};
  base.modules[std::string(names.head)] = {0, Site::kHead, hidden, config.vocab_size};
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    base.layers[absl::StrCat(names.root, names.layers, ".", layer)] = layer;
    for (const ModuleOfLayer& module : kLayerModules) {
      if (!module.path.empty()) {
        base.modules[config.LayerPath(layer, module.path)] = {
            layer, module.site, module.in_features, module.out_features};
      }
    }
  }
  return base;
}

absl::StatusOr<Model> LoadModel(const std::string& folder, const ModelOptions& options) {
  absl::StatusOr<Model> model = LoadWithoutThrowing(folder, options);
  if (!model.ok()) {
    return Annotate(model.status(), absl::StrCat("model ", folder));
  }
  return model;
}

}  // namespace tenon
