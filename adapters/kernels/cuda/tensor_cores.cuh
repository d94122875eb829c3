// Products of 16 x 16 matrices of bf16 on tensor cores, a warp each: all its lanes call together.
#ifndef TENON_ADAPTERS_KERNELS_CUDA_TENSOR_CORES_CUH_
#define TENON_ADAPTERS_KERNELS_CUDA_TENSOR_CORES_CUH_

#include "adapters/kernels/cuda/element.cuh"

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <mma.h>
#endif

namespace tenon::cuda {

constexpr int kMatrixEdge = 16;

// Matrices begin at multiples of 32 bytes, their rows at multiples of 16.
class LeftMatrix {
 public:
  __device__ __forceinline__ LeftMatrix(const BFloat16* rows, unsigned stride) {
    nvcuda::wmma::load_matrix_sync(fragment_, reinterpret_cast<const __nv_bfloat16*>(rows), stride);
  }

 private:
  friend class Accumulator;
  nvcuda::wmma::fragment<nvcuda::wmma::matrix_a, kMatrixEdge, kMatrixEdge, kMatrixEdge,
                         __nv_bfloat16, nvcuda::wmma::row_major>
      fragment_;
};

template <typename Layout>
class RightMatrixOf {
 public:
  __device__ __forceinline__ RightMatrixOf(const BFloat16* rows, unsigned stride) {
    nvcuda::wmma::load_matrix_sync(fragment_, reinterpret_cast<const __nv_bfloat16*>(rows), stride);
  }

 private:
  friend class Accumulator;
  nvcuda::wmma::fragment<nvcuda::wmma::matrix_b, kMatrixEdge, kMatrixEdge, kMatrixEdge,
                         __nv_bfloat16, Layout>
      fragment_;
};

using RightMatrix = RightMatrixOf<nvcuda::wmma::row_major>;
// Of rows that are the product's columns.
using RightTransposed = RightMatrixOf<nvcuda::wmma::col_major>;

// Sums in fp32.
class Accumulator {
 public:
  __device__ __forceinline__ void Zero() { nvcuda::wmma::fill_fragment(fragment_, 0.0f); }
  __device__ __forceinline__ void Load(const float* rows, unsigned stride) {
    nvcuda::wmma::load_matrix_sync(fragment_, rows, stride, nvcuda::wmma::mem_row_major);
  }
  template <typename Layout>
  __device__ __forceinline__ void AddProduct(const LeftMatrix& a, const RightMatrixOf<Layout>& b) {
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
