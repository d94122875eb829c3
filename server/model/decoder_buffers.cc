#include "server/model/decoder_buffers.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>

namespace tenon {

DecoderBuffers::DecoderBuffers(const ModelConfig& config, const at::TensorOptions& options,
                               int64_t tokens) {
  const auto make = [&](int64_t columns) { return at::empty({tokens, columns}, options); };
  normed = make(config.hidden_size);
  out = make(config.hidden_size);
  qkv = make(config.q_size() + 2 * config.kv_size());
  attention = make(config.q_size());
  gate_up = make((config.is_gated() ? 2 : 1) * config.intermediate_size);
  activated = make(config.intermediate_size);
  ViewHeads(config);
}

DecoderBuffers DecoderBuffers::First(const ModelConfig& config, int64_t tokens) const {
  DecoderBuffers first = *this;
  for (at::Tensor* buffer : {&first.residual, &first.normed, &first.out, &first.qkv,
                             &first.attention, &first.gate_up, &first.activated}) {
    *buffer = buffer->narrow(0, 0, tokens);
  }
  first.ViewHeads(config);
  return first;
}

void DecoderBuffers::Select(const ModelConfig& config, const at::Tensor& tokens) {
  residual = at::index_select(residual, 0, tokens);
  qkv = at::index_select(qkv, 0, tokens);
  for (at::Tensor* buffer : {&normed, &out, &attention, &gate_up, &activated}) {
    *buffer = buffer->narrow(0, 0, tokens.size(0));
  }
  ViewHeads(config);
}

void DecoderBuffers::ViewHeads(const ModelConfig& config) {
  const auto view = [&](const at::Tensor& rows, int64_t begin, int64_t heads) {
    return rows.narrow(1, begin, heads * config.head_dim)
        .view({rows.size(0), heads, config.head_dim});
  };
  q_heads = view(qkv, 0, config.num_heads);
  k_heads = view(qkv, config.q_size(), config.num_kv_heads);
  v_heads = view(qkv, config.q_size() + config.kv_size(), config.num_kv_heads);
  attention_heads = view(attention, 0, config.num_heads);
}

}  // namespace tenon
