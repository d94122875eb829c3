#include "server/model/decoder_loader.h"

#include <ATen/ops/equal.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "adapters/base/status_macros.h"

namespace tenon {

absl::StatusOr<at::Tensor> Decoder::Loader::Take(const std::string& name,
                                                 const std::vector<int64_t>& shape) {
  TENON_ASSIGN_OR_RETURN(const at::Tensor stored, checkpoint_->Take(name, shape));
  decoder_->num_parameters_ += stored.numel();
  return stored.to(decoder_->TensorOptions());  // the mapped tensor itself when it fits already
}

absl::StatusOr<Norm> Decoder::Loader::TakeNorm(const std::string& prefix, absl::string_view name,
                                               int64_t size) {
  const ModelConfig& config = decoder_->config_;
  if (name.empty()) {
    return Norm();
  }
  TENON_ASSIGN_OR_RETURN(const at::Tensor weight,
                         Take(absl::StrCat(prefix, name, ".weight"), {size}));
  at::Tensor bias;
  if (config.norm == NormKind::kLayer) {
    TENON_ASSIGN_OR_RETURN(bias, Take(absl::StrCat(prefix, name, ".bias"), {size}));
  }
  return Norm::Make(config.norm, static_cast<float>(config.norm_eps), weight, bias);
}

absl::StatusOr<Linear> Decoder::Loader::TakeLinear(const std::vector<Module>& modules,
                                                   int64_t in_features, bool bias) {
  const bool transposed = decoder_->config_.transposed_weights;
  std::vector<at::Tensor> weights;
  std::vector<at::Tensor> biases;
  for (const Module& module : modules) {
    std::vector<int64_t> shape = {module.out_features, in_features};
    if (transposed) {
      std::swap(shape[0], shape[1]);
    }
    TENON_ASSIGN_OR_RETURN(const at::Tensor weight,
                           Take(absl::StrCat(module.name, ".weight"), shape));
    weights.push_back(transposed ? weight.t().contiguous() : weight);
    if (bias) {
      TENON_ASSIGN_OR_RETURN(at::Tensor vector,
                             Take(absl::StrCat(module.name, ".bias"), {module.out_features}));
      biases.push_back(std::move(vector));
    }
  }
  return Linear::Create(std::move(weights), std::move(biases), decoder_->options_.kernels,
                        decoder_->options_.weights);
}

absl::Status Decoder::Loader::LoadAttention(const std::string& prefix, Layer& layer) {
  const ModelConfig& config = decoder_->config_;
  const ModulePaths& names = config.modules;
  const int64_t hidden = config.hidden_size;
  std::vector<Module> qkv;
  if (config.has_fused_qkv()) {
    qkv = {{absl::StrCat(prefix, names.qkv), config.q_size() + 2 * config.kv_size()}};
  } else {
    qkv = {{absl::StrCat(prefix, names.q), config.q_size()},
           {absl::StrCat(prefix, names.k), config.kv_size()},
           {absl::StrCat(prefix, names.v), config.kv_size()}};
  }
  TENON_ASSIGN_OR_RETURN(layer.attention_norm, TakeNorm(prefix, names.attention_norm, hidden));
  TENON_ASSIGN_OR_RETURN(LinearOf(layer, LinearKind::kQkv), TakeLinear(qkv, hidden, config.qkv_bias));
  TENON_ASSIGN_OR_RETURN(layer.q_norm, TakeNorm(prefix, names.q_norm, config.head_dim));
  TENON_ASSIGN_OR_RETURN(layer.k_norm, TakeNorm(prefix, names.k_norm, config.head_dim));
  TENON_ASSIGN_OR_RETURN(LinearOf(layer, LinearKind::kO), TakeLinear({{absl::StrCat(prefix, names.o), hidden}},
                                             config.q_size(), config.o_bias));
  TENON_ASSIGN_OR_RETURN(layer.post_attention_norm,
                         TakeNorm(prefix, names.post_attention_norm, hidden));
  return absl::OkStatus();
}

absl::Status Decoder::Loader::LoadFeedForward(const std::string& prefix, Layer& layer) {
  const ModelConfig& config = decoder_->config_;
  const ModulePaths& names = config.modules;
  const int64_t hidden = config.hidden_size, intermediate = config.intermediate_size;
  std::vector<Module> up;
  if (config.is_gated()) {
    up.push_back({absl::StrCat(prefix, names.gate), intermediate});
  }
  up.push_back({absl::StrCat(prefix, names.up), intermediate});
  TENON_ASSIGN_OR_RETURN(layer.feed_forward_norm,
                         TakeNorm(prefix, names.feed_forward_norm, hidden));
  TENON_ASSIGN_OR_RETURN(LinearOf(layer, LinearKind::kGateUp), TakeLinear(up, hidden, config.mlp_bias));
  TENON_ASSIGN_OR_RETURN(LinearOf(layer, LinearKind::kDown), TakeLinear({{absl::StrCat(prefix, names.down), hidden}},
                                                intermediate, config.mlp_bias));
  TENON_ASSIGN_OR_RETURN(layer.post_feed_forward_norm,
                         TakeNorm(prefix, names.post_feed_forward_norm, hidden));
  return absl::OkStatus();
}

absl::Status Decoder::Loader::LoadLayer(int64_t index) {
  const std::string prefix = absl::StrCat(root_, decoder_->config_.modules.layers, ".", index, ".");
  Layer layer;
  TENON_RETURN_IF_ERROR(LoadAttention(prefix, layer));
  TENON_RETURN_IF_ERROR(LoadFeedForward(prefix, layer));
  decoder_->layers_.push_back(std::move(layer));
  return absl::OkStatus();
}

// One matrix is both. A file may repeat it; a copy that differs was trained apart, and tying it
// would lose it.
absl::Status Decoder::Loader::LoadTiedHead(const std::string& name) {
  const std::vector<int64_t> shape = {decoder_->config_.vocab_size, decoder_->config_.hidden_size};
  TENON_ASSIGN_OR_RETURN(const at::Tensor embeddings, Take(name, shape));
  const std::string head_name = absl::StrCat(decoder_->config_.modules.head, ".weight");
  if (checkpoint_->Has(head_name)) {
    TENON_ASSIGN_OR_RETURN(at::Tensor head, checkpoint_->Take(head_name, shape));
    head = head.to(embeddings.options());
    if (!at::equal(head, embeddings)) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", head_name, " differs from ", name,
                       " although config.json ties them (tie_word_embeddings)"));
    }
  }
  TENON_ASSIGN_OR_RETURN(decoder_->lm_head_,
                         Linear::Create({embeddings}, {}, decoder_->options_.kernels,
                                        decoder_->options_.weights));
  return absl::OkStatus();
}

absl::Status Decoder::Loader::LoadHead() {
  const ModelConfig& config = decoder_->config_;
  const std::vector<int64_t> shape = {config.vocab_size, config.hidden_size};
  const std::string embeddings = absl::StrCat(root_, config.modules.embeddings, ".weight");
  if (config.tie_word_embeddings) {
    return LoadTiedHead(embeddings);
  }
  TENON_ASSIGN_OR_RETURN(decoder_->embeddings_, Take(embeddings, shape));
  TENON_ASSIGN_OR_RETURN(const at::Tensor head,
                         Take(absl::StrCat(config.modules.head, ".weight"), shape));
  TENON_ASSIGN_OR_RETURN(decoder_->lm_head_,
                         Linear::Create({head}, {}, decoder_->options_.kernels,
                                        decoder_->options_.weights));
  return absl::OkStatus();
}

absl::Status Decoder::Loader::Load() {
  const ModelConfig& config = decoder_->config_;
  root_ = CheckpointRoot(config, *checkpoint_);
  for (int64_t index = 0; index < config.num_layers; ++index) {
    TENON_RETURN_IF_ERROR(LoadLayer(index));
    checkpoint_->DropPages();  // the layer is packed: what was mapped is not needed beside it
  }
  TENON_ASSIGN_OR_RETURN(decoder_->final_norm_,
                         TakeNorm(root_, config.modules.final_norm, config.hidden_size));
  if (!config.modules.positions.empty()) {
    TENON_ASSIGN_OR_RETURN(decoder_->positions_,
                           Take(absl::StrCat(root_, config.modules.positions, ".weight"),
                                {config.max_position_embeddings, config.hidden_size}));
  }
  TENON_RETURN_IF_ERROR(LoadHead());
  checkpoint_->DropPages();
  return checkpoint_->CheckAllTaken();
}

std::string CheckpointRoot(const ModelConfig& config, const Checkpoint& checkpoint) {
  const std::string root(config.modules.root);
  const std::string bare = absl::StrCat(config.modules.embeddings, ".weight");
  return checkpoint.Has(bare) && !checkpoint.Has(root + bare) ? "" : root;
}

}  // namespace tenon
