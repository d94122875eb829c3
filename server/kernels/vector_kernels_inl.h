// The table of this file's instruction set. Include after one of adapters/kernels/vec_*.h.
#ifndef TENON_SERVER_KERNELS_VECTOR_KERNELS_INL_H_
#define TENON_SERVER_KERNELS_VECTOR_KERNELS_INL_H_

#include "server/kernels/attention_kernels_inl.h"
#include "server/kernels/elementwise_kernels_inl.h"

namespace tenon {
namespace {

template <typename T>
constexpr VectorKernelsOf<T> MakeKernelsOf() {
  return {Attend<T>,    RmsNormRow<T, true>, RmsNormRow<T, false>, LayerNormRow<T>,
          RotateRow<T>, GateRow<T, Silu>,    GateRow<T, GeluTanh>, SoftCapRow<T>};
}

constexpr VectorKernels MakeVectorKernels() {
  return {MakeKernelsOf<float>(), MakeKernelsOf<uint16_t>()};
}

}  // namespace
}  // namespace tenon

#endif  // TENON_SERVER_KERNELS_VECTOR_KERNELS_INL_H_
