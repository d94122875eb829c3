// Rotary position embedding.
#ifndef TENON_SERVER_KERNELS_ROPE_H_
#define TENON_SERVER_KERNELS_ROPE_H_

#include <ATen/core/Tensor.h>

namespace tenon {

/// What ApplyRope takes: row positions[t] of cos and sin belongs to token t.
struct RopeRows {
  at::Tensor cos;        ///< [rows, head_dim / 2] fp32
  at::Tensor sin;        ///< [rows, head_dim / 2] fp32
  at::Tensor positions;  ///< [T] int64
};

/// Rotates each head of each token in place by its position (RoFormer, arXiv:2104.09864; pairs are
/// (i, i + head_dim / 2), as in Hugging Face's Llama):
///   x[i], x[i + d/2] = x[i] * cos - x[i + d/2] * sin,  x[i + d/2] * cos + x[i] * sin
/// x         [T, heads, head_dim] fp32/bf16, in place; any row stride (a slice of a fused qkv
///           output is fine), contiguous within a row; head_dim even.
/// cos, sin  [max_position, head_dim / 2] fp32, contiguous.
/// positions [T] int64 or int32, each in [0, max_position).
/// Computes in fp32 and rounds once; Hugging Face rounds cos and sin to x's dtype first, which for
/// bf16 differs in the last bits. Throws c10::Error on a shape, dtype or position that does not
/// fit.
void ApplyRope(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin,
               const at::Tensor& positions);

/// The same in plain ATen operations: they define what is correct and run on any device.
void ApplyRopeReference(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin,
                        const at::Tensor& positions);

}  // namespace tenon

#endif  // TENON_SERVER_KERNELS_ROPE_H_
