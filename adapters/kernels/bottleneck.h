// Bottleneck modules: out += s * up(f(down(input))), for the segments of a batch.
#ifndef TENON_ADAPTERS_KERNELS_BOTTLENECK_H_
#define TENON_ADAPTERS_KERNELS_BOTTLENECK_H_

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <span>

#include "adapters/kernels/packed_matrix.h"

namespace tenon {

/// The function between down and up.
enum class BottleneckActivation : uint8_t {
  kIdentity,
  kRelu,
  kLeakyRelu,  ///< slope 0.01 below 0
  kGelu,
  kGeluTanh,
  kSilu,
  kTanh,
};

/// What a bottleneck module reads.
enum class BottleneckInput : uint8_t {
  kOutput,              ///< what its sublayer gives out
  kOutputPlusResidual,  ///< the sum of that and the residual stream
  kResidual,            ///< the residual stream that enters the sublayer, un-normed (parallel)
};

/// What a bottleneck module's own residual connection adds.
enum class BottleneckResidual : uint8_t {
  kOutput,              ///< what its sublayer gives out
  kInput,               ///< the module's input, in front of norm_before
  kOutputPlusResidual,  ///< the sum of the sublayer's output and the residual stream
};

/// An affine layer norm, epsilon 1e-5 (torch.nn.LayerNorm's default).
struct LayerNormWeights {
  at::Tensor weight;  ///< [hidden] fp32, or undefined: no norm
  at::Tensor bias;    ///< [hidden] fp32
};

/// One bottleneck module of one adapter, residual being the stream that enters the sublayer:
///   u    = input_norm(input)
///   v    = scale * up(activation(down(norm_before(u))))           down and up with their biases
///   v    = norm_after(v) + r, or norm_after(v + r) when adds_residual_before_norm
///   out += weight * (v - out - (drops_stream ? residual : 0))
struct BottleneckDelta {
  PackedMatrix down;      ///< [width, hidden], the base model's dtype
  PackedMatrix up;        ///< [hidden, width]
  at::Tensor down_bias;   ///< [width] fp32
  at::Tensor up_bias;     ///< [hidden] fp32
  at::Tensor scale;       ///< [hidden] fp32
  at::Tensor input_norm;  ///< [hidden] fp32: the factors of an RMS norm, or undefined: none
  float input_norm_eps = 1e-6f;
  BottleneckActivation activation = BottleneckActivation::kRelu;
  BottleneckInput input = BottleneckInput::kOutput;
  BottleneckResidual residual = BottleneckResidual::kOutput;  ///< r
  bool adds_residual_before_norm = false;
  bool drops_stream = false;  ///< the residual stream does not go around the sublayer
  LayerNormWeights norm_before, norm_after;

  /// The same module with all tensors on `device`.
  BottleneckDelta OnDevice(at::Device device) const;
  int64_t width() const { return down.out_features(); }
  int64_t nbytes() const;
};

/// Throws c10::Error when the module's tensors do not fit rows of `hidden` elements of `dtype`.
void CheckBottleneck(const BottleneckDelta& delta, int64_t hidden, at::ScalarType dtype);

/// A run of token rows that one module applies to.
struct BottleneckTerm {
  int64_t begin = 0, end = 0;
  const BottleneckDelta* delta = nullptr;  ///< never null
  float weight = 1.0f;
};

/// Adds each term's update in place. Terms may share rows: all read `out` as it came in.
/// residual [T, hidden]  the residual stream that entered the sublayer, contiguous within a row.
/// out      [T, hidden]  what the sublayer gives out; the same dtype; must not alias residual.
/// Each output row depends only on its own rows, bit for bit. Sums are accumulated in fp32; for
/// bf16 the input of each product and the term's update are rounded once.
/// Throws c10::Error on a shape or dtype that does not fit; `out` is then untouched.
void ApplyBottleneck(const at::Tensor& residual, std::span<const BottleneckTerm> terms,
                     const at::Tensor& out);

/// The same in plain ATen operations: defines what is correct.
void ApplyBottleneckReference(const at::Tensor& residual, std::span<const BottleneckTerm> terms,
                              const at::Tensor& out);

}  // namespace tenon

#endif  // TENON_ADAPTERS_KERNELS_BOTTLENECK_H_
