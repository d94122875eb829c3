#include "server/model/decoder_loader.h"

#include <ATen/ops/cat.h>
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
  const ModelConfig& config = config_;
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

Decoder::Loader::Part Decoder::Loader::KvShared() const {
  const RankShare heads = KvShareOf(config_.num_kv_heads, decoder_->rank(), decoder_->num_ranks());
  return {config_.kv_size(), {heads.begin * config_.head_dim, heads.count * config_.head_dim}};
}

at::Tensor Decoder::Loader::Select(const at::Tensor& whole, int64_t dim,
                                   const std::vector<Part>& parts) {
  std::vector<at::Tensor> selected;
  int64_t begin = 0, count = 0;
  for (const Part& part : parts) {
    selected.push_back(whole.narrow(dim, begin + part.share.begin, part.share.count));
    begin += part.size;
    count += part.share.count;
  }
  if (count == whole.size(dim)) {
    return whole;
  }
  return selected.size() == 1 ? selected.front() : at::cat(selected, dim);
}

absl::StatusOr<Linear> Decoder::Loader::TakeLinear(const std::vector<Module>& modules,
                                                   const Part& inputs, bool bias) {
  const bool transposed = config_.transposed_weights;
  // What is added to a sum over ranks is one rank's.
  const bool has_bias = inputs.share.begin == 0;
  std::vector<at::Tensor> weights;
  std::vector<at::Tensor> biases;
  for (const Module& module : modules) {
    int64_t out_features = 0;
    for (const Part& part : module.outputs) {
      out_features += part.size;
    }
    std::vector<int64_t> shape = {out_features, inputs.size};
    if (transposed) {
      std::swap(shape[0], shape[1]);
    }
    TENON_ASSIGN_OR_RETURN(const at::Tensor weight,
                           Take(absl::StrCat(module.name, ".weight"), shape));
    weights.push_back(Select(
        Select(transposed ? weight.t().contiguous() : weight, 0, module.outputs), 1, {inputs}));
    if (bias) {
      TENON_ASSIGN_OR_RETURN(const at::Tensor vector,
                             Take(absl::StrCat(module.name, ".bias"), {out_features}));
      biases.push_back(has_bias ? Select(vector, 0, module.outputs) : at::Tensor());
    }
  }
  return Linear::Create(std::move(weights), std::move(biases), decoder_->options_.kernels,
                        decoder_->options_.weights);
}

absl::Status Decoder::Loader::LoadAttention(const std::string& prefix, Layer& layer) {
  const ModelConfig& config = config_;
  const ModulePaths& names = config.modules;
  const int64_t hidden = config.hidden_size;
  std::vector<Module> qkv;
  if (config.has_fused_qkv()) {
    qkv = {{absl::StrCat(prefix, names.qkv), {Shared(config.q_size()), KvShared(), KvShared()}}};
  } else {
    qkv = {{absl::StrCat(prefix, names.q), {Shared(config.q_size())}},
           {absl::StrCat(prefix, names.k), {KvShared()}},
           {absl::StrCat(prefix, names.v), {KvShared()}}};
  }
  TENON_ASSIGN_OR_RETURN(layer.attention_norm, TakeNorm(prefix, names.attention_norm, hidden));
  TENON_ASSIGN_OR_RETURN(LinearOf(layer, LinearKind::kQkv),
                         TakeLinear(qkv, Whole(hidden), config.qkv_bias));
  TENON_ASSIGN_OR_RETURN(layer.q_norm, TakeNorm(prefix, names.q_norm, config.head_dim));
  TENON_ASSIGN_OR_RETURN(layer.k_norm, TakeNorm(prefix, names.k_norm, config.head_dim));
  TENON_ASSIGN_OR_RETURN(LinearOf(layer, LinearKind::kO),
                         TakeLinear({{absl::StrCat(prefix, names.o), {Whole(hidden)}}},
                                    Shared(config.q_size()), config.o_bias));
  TENON_ASSIGN_OR_RETURN(layer.post_attention_norm,
                         TakeNorm(prefix, names.post_attention_norm, hidden));
  return absl::OkStatus();
}

absl::Status Decoder::Loader::LoadFeedForward(const std::string& prefix, Layer& layer) {
  const ModelConfig& config = config_;
  const ModulePaths& names = config.modules;
  const int64_t hidden = config.hidden_size, intermediate = config.intermediate_size;
  std::vector<Module> up;
  if (config.is_gated()) {
    up.push_back({absl::StrCat(prefix, names.gate), {Shared(intermediate)}});
  }
  up.push_back({absl::StrCat(prefix, names.up), {Shared(intermediate)}});
  TENON_ASSIGN_OR_RETURN(layer.feed_forward_norm,
                         TakeNorm(prefix, names.feed_forward_norm, hidden));
  TENON_ASSIGN_OR_RETURN(LinearOf(layer, LinearKind::kGateUp),
                         TakeLinear(up, Whole(hidden), config.mlp_bias));
  TENON_ASSIGN_OR_RETURN(LinearOf(layer, LinearKind::kDown),
                         TakeLinear({{absl::StrCat(prefix, names.down), {Whole(hidden)}}},
                                    Shared(intermediate), config.mlp_bias));
  TENON_ASSIGN_OR_RETURN(layer.post_feed_forward_norm,
                         TakeNorm(prefix, names.post_feed_forward_norm, hidden));
  return absl::OkStatus();
}

absl::Status Decoder::Loader::LoadLayer(int64_t index) {
  const std::string prefix = absl::StrCat(root_, config_.modules.layers, ".", index, ".");
  Layer layer;
  TENON_RETURN_IF_ERROR(LoadAttention(prefix, layer));
  TENON_RETURN_IF_ERROR(LoadFeedForward(prefix, layer));
  decoder_->layers_.push_back(std::move(layer));
  return absl::OkStatus();
}

// One matrix is both. A file may repeat it; a copy that differs was trained apart, and tying it
// would lose it.
absl::Status Decoder::Loader::LoadTiedHead(const std::string& name) {
  const std::vector<int64_t> shape = {config_.vocab_size, config_.hidden_size};
  TENON_ASSIGN_OR_RETURN(const at::Tensor embeddings, Take(name, shape));
  const std::string head_name = absl::StrCat(config_.modules.head, ".weight");
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
                         Linear::Create({Select(embeddings, 0, {Shared(config_.vocab_size)})}, {},
                                        decoder_->options_.kernels, decoder_->options_.weights));
  return absl::OkStatus();
}

absl::Status Decoder::Loader::LoadHead() {
  const ModelConfig& config = config_;
  const std::vector<int64_t> shape = {config.vocab_size, config.hidden_size};
  const std::string embeddings = absl::StrCat(root_, config.modules.embeddings, ".weight");
  if (config.tie_word_embeddings) {
    return LoadTiedHead(embeddings);
  }
  TENON_ASSIGN_OR_RETURN(const at::Tensor table, Take(embeddings, shape));
  decoder_->embeddings_ = Select(table, 0, {Shared(config.vocab_size)});
  TENON_ASSIGN_OR_RETURN(const at::Tensor head,
                         Take(absl::StrCat(config.modules.head, ".weight"), shape));
  TENON_ASSIGN_OR_RETURN(decoder_->lm_head_,
                         Linear::Create({Select(head, 0, {Shared(config.vocab_size)})}, {},
                                        decoder_->options_.kernels, decoder_->options_.weights));
  return absl::OkStatus();
}

absl::Status Decoder::Loader::Load() {
  const ModelConfig& config = config_;
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
