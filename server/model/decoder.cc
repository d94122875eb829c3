#include "server/model/decoder.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>

#include <cmath>
#include <utility>

#include "adapters/base/status_macros.h"
#include "server/kernels/activation.h"
#include "server/kernels/norm.h"
#include "server/kernels/rope.h"
#include "server/model/decoder_loader.h"

namespace tenon {

// The operations of one KernelKind.
struct Decoder::Kernels {
  decltype(&RmsNorm) rms_norm;
  decltype(&AddRmsNorm) add_rms_norm;
  decltype(&ApplyRope) apply_rope;
  decltype(&WriteKv) write_kv;
  decltype(&PagedAttention) paged_attention;
  decltype(&SiluMul) silu_mul;

  static const Kernels* Of(KernelKind kind) {
    static constexpr Kernels kReference = {&RmsNormReference,        &AddRmsNormReference,
                                           &ApplyRopeReference,      &WriteKvReference,
                                           &PagedAttentionReference, &SiluMulReference};
    static constexpr Kernels kCpu = {&RmsNorm, &AddRmsNorm,     &ApplyRope,
                                     &WriteKv, &PagedAttention, &SiluMul};
    return kind == KernelKind::kReference ? &kReference : &kCpu;
  }
};

// Activations of one step, used again by every layer.
struct Decoder::Buffers {
  at::Tensor residual;   // [T, hidden]: the residual stream
  at::Tensor normed;     // [T, hidden]: what a sublayer reads
  at::Tensor out;        // [T, hidden]: what a sublayer adds
  at::Tensor qkv;        // [T, q + 2 kv]
  at::Tensor attention;  // [T, q]
  at::Tensor gate_up;    // [T, 2 intermediate]
  at::Tensor activated;  // [T, intermediate]

  Buffers(const ModelConfig& config, at::ScalarType dtype, int64_t tokens) {
    const auto make = [&](int64_t columns) {
      return at::empty({tokens, columns}, at::TensorOptions(dtype));
    };
    normed = make(config.hidden_size);
    out = make(config.hidden_size);
    qkv = make(config.q_size() + 2 * config.kv_size());
    attention = make(config.q_size());
    gate_up = make(2 * config.intermediate_size);
    activated = make(config.intermediate_size);
  }
};

Decoder::Decoder(const ModelConfig& config, const Options& options)
    : config_(config), options_(options), kernels_(Kernels::Of(options.kernels)) {}

absl::StatusOr<std::unique_ptr<const Decoder>> Decoder::Create(const ModelConfig& config,
                                                               const Options& options,
                                                               Checkpoint& checkpoint) {
  std::unique_ptr<Decoder> decoder(new Decoder(config, options));
  TENON_RETURN_IF_ERROR(Loader(&checkpoint, decoder.get()).Load());
  return decoder;
}

void Decoder::Attention(int64_t layer, const DecoderInput& input, const AdapterDeltas& deltas,
                        const KvCache& cache, Buffers& buffers) const {
  const Layer& weights = layers_[layer];
  const int64_t tokens = buffers.qkv.size(0);
  weights.qkv.Forward(buffers.normed, buffers.qkv);
  const at::Tensor q = buffers.qkv.narrow(1, 0, config_.q_size());
  const at::Tensor k = buffers.qkv.narrow(1, config_.q_size(), config_.kv_size());
  const at::Tensor v =
      buffers.qkv.narrow(1, config_.q_size() + config_.kv_size(), config_.kv_size());
  deltas.AddDelta(layer, Site::kQ, buffers.normed, q);
  deltas.AddDelta(layer, Site::kK, buffers.normed, k);
  deltas.AddDelta(layer, Site::kV, buffers.normed, v);

  const at::Tensor q_heads = q.view({tokens, config_.num_heads, config_.head_dim});
  const at::Tensor k_heads = k.view({tokens, config_.num_kv_heads, config_.head_dim});
  const at::Tensor v_heads = v.view({tokens, config_.num_kv_heads, config_.head_dim});
  kernels_->apply_rope(q_heads, input.rope.cos, input.rope.sin, input.rope.positions);
  kernels_->apply_rope(k_heads, input.rope.cos, input.rope.sin, input.rope.positions);
  kernels_->write_kv(k_heads, v_heads, input.slots, cache.keys(layer), cache.values(layer));
  const float scale = 1.0f / std::sqrt(static_cast<float>(config_.head_dim));
  kernels_->paged_attention(q_heads, cache.keys(layer), cache.values(layer), input.rows, scale,
                            buffers.attention.view({tokens, config_.num_heads, config_.head_dim}));
  weights.o.Forward(deltas.ScaleInput(layer, Site::kO, buffers.attention), buffers.out);
  deltas.AddDelta(layer, Site::kO, buffers.attention, buffers.out);
  deltas.AddBottleneck(layer, Sublayer::kAttention, buffers.residual, buffers.out);
}

void Decoder::FeedForward(int64_t layer, const AdapterDeltas& deltas, Buffers& buffers) const {
  const Layer& weights = layers_[layer];
  weights.gate_up.Forward(buffers.normed, buffers.gate_up);
  deltas.AddDelta(layer, Site::kGate, buffers.normed,
                  buffers.gate_up.narrow(1, 0, config_.intermediate_size));
  deltas.AddDelta(layer, Site::kUp, buffers.normed,
                  buffers.gate_up.narrow(1, config_.intermediate_size, config_.intermediate_size));
  kernels_->silu_mul(buffers.gate_up, buffers.activated);
  weights.down.Forward(deltas.ScaleInput(layer, Site::kDown, buffers.activated), buffers.out);
  deltas.AddDelta(layer, Site::kDown, buffers.activated, buffers.out);
  deltas.AddBottleneck(layer, Sublayer::kFeedForward, buffers.residual, buffers.out);
}

at::Tensor Decoder::Forward(const DecoderInput& input, const KvCache& cache) const {
  const float eps = static_cast<float>(config_.rms_norm_eps);
  Buffers buffers(config_, options_.dtype, input.tokens.size(0));
  const AdapterDeltas deltas(input.segments, options_.kernels);
  buffers.residual = embeddings_.defined() ? at::index_select(embeddings_, 0, input.tokens)
                                           : lm_head_.Rows(input.tokens);
  deltas.ReplaceEmbeddings(input.tokens, /*scale=*/1.0f, buffers.residual);
  if (input.virtual_embeddings.defined()) {
    const int64_t count = input.virtual_embeddings.size(0);
    buffers.residual.narrow(0, input.tokens.size(0) - count, count).copy_(input.virtual_embeddings);
  }
  kernels_->rms_norm(buffers.residual, layers_.front().input_norm, eps, buffers.normed);
  for (int64_t layer = 0; layer < config_.num_layers; ++layer) {
    Attention(layer, input, deltas, cache, buffers);
    kernels_->add_rms_norm(buffers.out, buffers.residual, layers_[layer].post_attention_norm, eps,
                           buffers.normed);
    FeedForward(layer, deltas, buffers);
    // The residual addition of this layer and the norm in front of the next are one operation.
    const at::Tensor& next_norm =
        layer + 1 < config_.num_layers ? layers_[layer + 1].input_norm : final_norm_;
    kernels_->add_rms_norm(buffers.out, buffers.residual, next_norm, eps, buffers.normed);
  }
  return buffers.normed;
}

at::Tensor Decoder::Logits(const at::Tensor& hidden, std::span<const int64_t> token_of_row,
                           std::span<const AdapterSegment> segments) const {
  const at::Tensor logits =
      at::empty({hidden.size(0), config_.vocab_size}, at::TensorOptions(options_.dtype));
  lm_head_.Forward(hidden, logits);
  AdapterDeltas(segments, options_.kernels).AddHead(token_of_row, hidden, logits);
  return logits.to(at::kFloat);
}

int64_t Decoder::nbytes() const {
  int64_t total = lm_head_.nbytes() + static_cast<int64_t>(final_norm_.nbytes());
  total += embeddings_.defined() ? static_cast<int64_t>(embeddings_.nbytes()) : 0;
  for (const Layer& layer : layers_) {
    total += static_cast<int64_t>(layer.input_norm.nbytes() + layer.post_attention_norm.nbytes());
    total += layer.qkv.nbytes() + layer.o.nbytes() + layer.gate_up.nbytes() + layer.down.nbytes();
  }
  return total;
}

}  // namespace tenon
