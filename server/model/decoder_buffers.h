// DecoderBuffers: the activations of one forward pass.
#ifndef TENON_SERVER_MODEL_DECODER_BUFFERS_H_
#define TENON_SERVER_MODEL_DECODER_BUFFERS_H_

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "server/kernels/cuda_ops.h"
#include "server/model/model_config.h"

namespace tenon {

/// Used again by every layer.
struct DecoderBuffers {
  at::Tensor residual;   ///< [T, hidden]: the residual stream
  at::Tensor normed;     ///< [T, hidden]: what a sublayer reads
  at::Tensor out;        ///< [T, hidden]: what a sublayer adds
  at::Tensor qkv;        ///< [T, q + 2 kv]
  at::Tensor attention;  ///< [T, q]
  at::Tensor gate_up;    ///< [T, 2 intermediate], or [T, intermediate] without a gate
  at::Tensor activated;  ///< [T, intermediate]
  /// The same memory as `qkv` and `attention`, [T, heads, head_dim].
  at::Tensor q_heads, k_heads, v_heads, attention_heads;
  AttentionTable attention_table;  ///< kCuda only

  /// `residual` is left to the caller.
  DecoderBuffers(const ModelConfig& config, const at::TensorOptions& options, int64_t tokens);

  /// The first tokens' part, in the same memory.
  DecoderBuffers First(const ModelConfig& config, int64_t tokens) const;

  /// Goes on with these tokens [W] int64 alone; what a sublayer overwrites first is not kept.
  void Select(const ModelConfig& config, const at::Tensor& tokens);

 private:
  void ViewHeads(const ModelConfig& config);
};

}  // namespace tenon

#endif  // TENON_SERVER_MODEL_DECODER_BUFFERS_H_
