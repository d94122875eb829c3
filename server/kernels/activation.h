// The gate of a SwiGLU feed-forward layer.
#ifndef TENON_SERVER_KERNELS_ACTIVATION_H_
#define TENON_SERVER_KERNELS_ACTIVATION_H_

#include <ATen/core/Tensor.h>

namespace tenon {

/// y = silu(gate) * up (SwiGLU, arXiv:2002.05202), silu(g) = g / (1 + exp(-g)).
/// gate_up  [T, 2 * I] fp32/bf16, the gate in the first I columns; contiguous within a row.
/// y        [T, I] the same dtype, contiguous within a row; must not alias gate_up.
/// Computes in fp32 and rounds once. Throws c10::Error on a shape or dtype that does not fit.
void SiluMul(const at::Tensor& gate_up, const at::Tensor& y);

/// The same in plain ATen operations: defines what is correct, runs on any device.
void SiluMulReference(const at::Tensor& gate_up, const at::Tensor& y);

}  // namespace tenon

#endif  // TENON_SERVER_KERNELS_ACTIVATION_H_
