// Products of 16 x 16 matrices of bf16 on tensor cores, a warp each: all its lanes call together.
#ifndef TENON_ADAPTERS_KERNELS_CUDA_TENSOR_CORES_CUH_
#define TENON_ADAPTERS_KERNELS_CUDA_TENSOR_CORES_CUH_

#include "adapters/kernels/cuda/adapter_kernels.h"
#include "adapters/kernels/cuda/element.cuh"

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <mma.h>
#endif

namespace tenon::cuda {

// What a product has on its left or its right. It begins at a multiple of 32 bytes, its rows in
// memory at multiples of 16.
template <typename Use, typename Layout>
class MatrixOperand {
 public:
  __device__ __forceinline__ MatrixOperand(const BFloat16* rows, unsigned stride) {
    nvcuda::wmma::load_matrix_sync(fragment_, reinterpret_cast<const __nv_bfloat16*>(rows), stride);
  }

 private:
  friend class Accumulator;
  nvcuda::wmma::fragment<Use, kMatrixEdge, kMatrixEdge, kMatrixEdge, __nv_bfloat16, Layout>
      fragment_;
};

using LeftMatrix = MatrixOperand<nvcuda::wmma::matrix_a, nvcuda::wmma::row_major>;
using RightMatrix = MatrixOperand<nvcuda::wmma::matrix_b, nvcuda::wmma::row_major>;
// Of rows that are the product's columns.
using RightTransposed = MatrixOperand<nvcuda::wmma::matrix_b, nvcuda::wmma::col_major>;

// Sums in fp32.
class Accumulator {
 public:
  __device__ __forceinline__ void Zero() { nvcuda::wmma::fill_fragment(fragment_, 0.0f); }
  __device__ __forceinline__ void Load(const float* rows, unsigned stride) {
    nvcuda::wmma::load_matrix_sync(fragment_, rows, stride, nvcuda::wmma::mem_row_major);
  }
  template <typename Layout>
  __device__ __forceinline__ void AddProduct(
      const LeftMatrix& a, const MatrixOperand<nvcuda::wmma::matrix_b, Layout>& b) {
    nvcuda::wmma::mma_sync(fragment_, a.fragment_, b.fragment_, fragment_);
  }
  __device__ __forceinline__ void Store(float* rows, unsigned stride) const {
    nvcuda::wmma::store_matrix_sync(rows, fragment_, stride, nvcuda::wmma::mem_row_major);
  }

 private:
  nvcuda::wmma::fragment<nvcuda::wmma::accumulator, kMatrixEdge, kMatrixEdge, kMatrixEdge, float>
      fragment_;
};

}  // namespace tenon::cuda

#endif  // TENON_ADAPTERS_KERNELS_CUDA_TENSOR_CORES_CUH_
