// The elementwise update of rows: y = y * (1 + gain) + offset.
#ifndef TENON_ADAPTERS_KERNELS_AFFINE_H_
#define TENON_ADAPTERS_KERNELS_AFFINE_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>

namespace tenon {

/// One adapter's part of an affine update. Undefined tensors count as zeros.
struct AffinePart {
  at::Tensor gain;    ///< [columns] fp32 or undefined
  at::Tensor offset;  ///< [columns] fp32 or undefined
  float weight = 1.0f;
};

/// Rows [begin, end) of y, in place:
///   y = y * (1 + sum_i weight_i * gain_i) + sum_i weight_i * offset_i
/// y  [T, columns] fp32 or bf16, contiguous within a row. Computed in fp32 and rounded once; other
///    rows keep their bits, and so do all when there are no parts.
/// Throws c10::Error on a shape or dtype that does not fit.
void ApplyAffine(int64_t begin, int64_t end, std::span<const AffinePart> parts,
                 const at::Tensor& y);

/// The same in plain ATen operations: defines what is correct.
void ApplyAffineReference(int64_t begin, int64_t end, std::span<const AffinePart> parts,
                          const at::Tensor& y);

}  // namespace tenon

#endif  // TENON_ADAPTERS_KERNELS_AFFINE_H_
