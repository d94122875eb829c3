// Root-mean-square normalisation, alone and behind a residual addition.
#ifndef TENON_SERVER_KERNELS_NORM_H_
#define TENON_SERVER_KERNELS_NORM_H_

#include <ATen/core/Tensor.h>

namespace tenon {

/// y = weight * dtype(x / sqrt(mean(x^2) + eps)) for each row (arXiv:1910.07467), with the rounding
/// of Hugging Face's LlamaRMSNorm: statistics and normalised value in fp32, the latter rounded to
/// x's dtype, then the product rounded again.
/// x       [T, H] fp32/bf16, contiguous within a row.
/// weight  [H] the same dtype.
/// y       [T, H] the same dtype, contiguous within a row; may be x.
/// A row's result depends on that row alone. Throws c10::Error on a shape or dtype that does not
/// fit.
void RmsNorm(const at::Tensor& x, const at::Tensor& weight, float eps, const at::Tensor& y);

/// residual += x, rounded to its dtype; y = RmsNorm(residual). y may be x.
void AddRmsNorm(const at::Tensor& x, const at::Tensor& residual, const at::Tensor& weight,
                float eps, const at::Tensor& y);

/// The same in plain ATen operations: they define what is correct and run on any device.
void RmsNormReference(const at::Tensor& x, const at::Tensor& weight, float eps,
                      const at::Tensor& y);
void AddRmsNormReference(const at::Tensor& x, const at::Tensor& residual, const at::Tensor& weight,
                         float eps, const at::Tensor& y);

}  // namespace tenon

#endif  // TENON_SERVER_KERNELS_NORM_H_
