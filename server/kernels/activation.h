// The activation of a feed-forward layer, with and without a gate, and the soft-cap of logits.
#ifndef TENON_SERVER_KERNELS_ACTIVATION_H_
#define TENON_SERVER_KERNELS_ACTIVATION_H_

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace tenon {

enum class Activation : uint8_t {
  kSilu,      ///< x / (1 + exp(-x))
  kGeluTanh,  ///< 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) (arXiv:1606.08415)
};

/// y = f(gate) * up (SwiGLU, GeGLU: arXiv:2002.05202).
/// gate_up  [T, 2 * I] fp32/bf16, the gate in the first I columns; contiguous within a row.
/// y        [T, I] the same dtype, contiguous within a row; must not alias gate_up.
/// Computes in fp32 and rounds once. Throws c10::Error on a shape or dtype that does not fit.
void Gate(const at::Tensor& gate_up, Activation activation, const at::Tensor& y);

/// y = f(x), both [T, I] of one dtype, contiguous within a row. y may be x.
void Activate(const at::Tensor& x, Activation activation, const at::Tensor& y);

/// x [T, V] fp32/bf16, contiguous, as fp32.
at::Tensor ToFloat(const at::Tensor& x);

/// x = cap * tanh(x / cap) in place; x [T, V] fp32/bf16, contiguous within a row; cap > 0.
/// Each element's bits depend on its value alone.
void SoftCap(const at::Tensor& x, float cap);

/// The same in plain ATen operations: they define what is correct and run on any device.
void GateReference(const at::Tensor& gate_up, Activation activation, const at::Tensor& y);
void ActivateReference(const at::Tensor& x, Activation activation, const at::Tensor& y);
void SoftCapReference(const at::Tensor& x, float cap);

}  // namespace tenon

#endif  // TENON_SERVER_KERNELS_ACTIVATION_H_
