// Normalisation of rows, alone, behind a residual addition, and per attention head.
#ifndef TENON_SERVER_KERNELS_NORM_H_
#define TENON_SERVER_KERNELS_NORM_H_

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace tenon {

/// For a row x of H elements, all in fp32 unless said otherwise:
enum class NormKind : uint8_t {
  /// weight * dtype(x / sqrt(mean(x^2) + eps)), rounded again (RMSNorm, arXiv:1910.07467, with the
  /// two roundings of Hugging Face's LlamaRMSNorm).
  kRms,
  /// (1 + weight) * x / sqrt(mean(x^2) + eps), rounded once (Hugging Face's Gemma2RMSNorm).
  kRmsFromOne,
  /// weight * (x - mean(x)) / sqrt(variance(x) + eps) + bias, rounded once (arXiv:1607.06450).
  kLayer,
};

/// One normalisation layer with its weights.
struct Norm {
  NormKind kind = NormKind::kRms;
  float eps = 0.0f;
  at::Tensor weight;  ///< [H] fp32, as kinds use it: kRmsFromOne keeps 1 + weight
  at::Tensor bias;    ///< [H] fp32, kLayer only

  /// From the tensors of a checkpoint, of any dtype; `stored_bias` is undefined but for kLayer.
  static Norm Make(NormKind kind, float eps, const at::Tensor& stored_weight,
                   const at::Tensor& stored_bias);

  bool defined() const { return weight.defined(); }
  int64_t nbytes() const;
};

/// y = norm(x) for each row.
/// x  [T, H] fp32/bf16, contiguous within a row.
/// y  [T, H] the same dtype, contiguous within a row; may be x.
/// A row's result depends on that row alone. Throws c10::Error on a shape or dtype that does not
/// fit.
void Normalize(const at::Tensor& x, const Norm& norm, const at::Tensor& y);

/// residual += x, rounded to its dtype; y = norm(residual). y may be x.
void AddNormalize(const at::Tensor& x, const at::Tensor& residual, const Norm& norm,
                  const at::Tensor& y);

/// x = norm(x) for each head of each token, H being head_dim.
/// x  [T, heads, head_dim] fp32/bf16; any row stride, contiguous within a row.
void NormalizeHeads(const at::Tensor& x, const Norm& norm);

/// The same in plain ATen operations: they define what is correct and run on any device.
void NormalizeReference(const at::Tensor& x, const Norm& norm, const at::Tensor& y);
void AddNormalizeReference(const at::Tensor& x, const at::Tensor& residual, const Norm& norm,
                           const at::Tensor& y);
void NormalizeHeadsReference(const at::Tensor& x, const Norm& norm);

}  // namespace tenon

#endif  // TENON_SERVER_KERNELS_NORM_H_
