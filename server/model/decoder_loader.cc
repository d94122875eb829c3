#include "server/model/decoder_loader.h"

#include <ATen/ops/equal.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "adapters/base/status_macros.h"

namespace tenon {

absl::StatusOr<at::Tensor> Decoder::Loader::Take(const std::string& name,
                                                 const std::vector<int64_t>& shape) {
  TENON_ASSIGN_OR_RETURN(const at::Tensor stored, checkpoint_->Take(name, shape));
  return stored.to(decoder_->options_.dtype);  // the mapped tensor itself when it fits already
}

absl::StatusOr<Linear> Decoder::Loader::TakeLinear(const std::vector<Module>& modules,
                                                   int64_t in_features, bool bias) {
  std::vector<at::Tensor> weights;
  std::vector<at::Tensor> biases;
  for (const Module& module : modules) {
    TENON_ASSIGN_OR_RETURN(at::Tensor weight, Take(absl::StrCat(module.name, ".weight"),
                                                   {module.out_features, in_features}));
    weights.push_back(std::move(weight));
    if (bias) {
      TENON_ASSIGN_OR_RETURN(at::Tensor vector,
                             Take(absl::StrCat(module.name, ".bias"), {module.out_features}));
      biases.push_back(std::move(vector));
    }
  }
  return Linear::Create(std::move(weights), std::move(biases), decoder_->options_.kernels);
}

absl::Status Decoder::Loader::LoadLayer(int64_t index) {
  const ModelConfig& config = decoder_->config_;
  const int64_t hidden = config.hidden_size;
  const std::string base = absl::StrCat("model.layers.", index, ".");
  const std::string attention = absl::StrCat(base, "self_attn.");
  const std::string mlp = absl::StrCat(base, "mlp.");
  Layer layer;
  TENON_ASSIGN_OR_RETURN(layer.input_norm, Take(base + "input_layernorm.weight", {hidden}));
  TENON_ASSIGN_OR_RETURN(layer.qkv, TakeLinear({{attention + "q_proj", config.q_size()},
                                                {attention + "k_proj", config.kv_size()},
                                                {attention + "v_proj", config.kv_size()}},
                                               hidden, config.attention_bias));
  TENON_ASSIGN_OR_RETURN(layer.o, TakeLinear({{attention + "o_proj", hidden}}, config.q_size(),
                                             config.attention_bias));
  TENON_ASSIGN_OR_RETURN(layer.post_attention_norm,
                         Take(base + "post_attention_layernorm.weight", {hidden}));
  TENON_ASSIGN_OR_RETURN(layer.gate_up, TakeLinear({{mlp + "gate_proj", config.intermediate_size},
                                                    {mlp + "up_proj", config.intermediate_size}},
                                                   hidden, config.mlp_bias));
  TENON_ASSIGN_OR_RETURN(layer.down, TakeLinear({{mlp + "down_proj", hidden}},
                                                config.intermediate_size, config.mlp_bias));
  decoder_->layers_.push_back(std::move(layer));
  return absl::OkStatus();
}

// One matrix is both. A file may repeat it; a copy that differs was trained apart, and tying it
// would lose it.
absl::Status Decoder::Loader::LoadTiedHead() {
  const std::vector<int64_t> shape = {decoder_->config_.vocab_size, decoder_->config_.hidden_size};
  TENON_ASSIGN_OR_RETURN(const at::Tensor embeddings, Take("model.embed_tokens.weight", shape));
  if (checkpoint_->Has("lm_head.weight")) {
    TENON_ASSIGN_OR_RETURN(const at::Tensor head, Take("lm_head.weight", shape));
    if (!at::equal(head, embeddings)) {
      return absl::InvalidArgumentError(
          "tensor lm_head.weight differs from model.embed_tokens.weight although config.json ties "
          "them (tie_word_embeddings)");
    }
  }
  TENON_ASSIGN_OR_RETURN(decoder_->lm_head_,
                         Linear::Create({embeddings}, {}, decoder_->options_.kernels));
  return absl::OkStatus();
}

absl::Status Decoder::Loader::LoadHead() {
  const ModelConfig& config = decoder_->config_;
  if (config.tie_word_embeddings) {
    return LoadTiedHead();
  }
  TENON_ASSIGN_OR_RETURN(decoder_->embeddings_, Take("model.embed_tokens.weight",
                                                     {config.vocab_size, config.hidden_size}));
  TENON_ASSIGN_OR_RETURN(decoder_->lm_head_, TakeLinear({{"lm_head", config.vocab_size}},
                                                        config.hidden_size, /*bias=*/false));
  return absl::OkStatus();
}

absl::Status Decoder::Loader::Load() {
  const ModelConfig& config = decoder_->config_;
  for (int64_t index = 0; index < config.num_layers; ++index) {
    TENON_RETURN_IF_ERROR(LoadLayer(index));
    checkpoint_->DropPages();  // the layer is packed: what was mapped is not needed beside it
  }
  TENON_ASSIGN_OR_RETURN(decoder_->final_norm_, Take("model.norm.weight", {config.hidden_size}));
  TENON_RETURN_IF_ERROR(LoadHead());
  checkpoint_->DropPages();
  return checkpoint_->CheckAllTaken();
}

}  // namespace tenon
