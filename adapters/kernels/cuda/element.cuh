// What kernels share: element types, launches, sums over a warp. Also compiles as C++ for the host,
// with a stand-in for CUDA's own words (tests/device/host_cuda.h) included in front.
#ifndef TENON_ADAPTERS_KERNELS_CUDA_ELEMENT_CUH_
#define TENON_ADAPTERS_KERNELS_CUDA_ELEMENT_CUH_

#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#include <cuda_runtime.h>
#define TENON_LAUNCH(kernel, grid, block, stream, ...) \
  kernel<<<grid, block, 0, static_cast<cudaStream_t>(stream)>>>(__VA_ARGS__)
#endif

namespace tenon::cuda {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xFFFFFFFFu;

// What is wrong with the launches so far, or null: what the functions of the tables return.
inline const char* LaunchProblem() {
  const cudaError_t error = cudaPeekAtLastError();
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

struct BFloat16 {
  uint16_t bits;
};

__device__ __forceinline__ float FloatOfBits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}

__device__ __forceinline__ uint32_t BitsOfFloat(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof(bits));
  return bits;
}

__device__ __forceinline__ float ToFloat(float value) { return value; }
__device__ __forceinline__ float ToFloat(BFloat16 value) {
  return FloatOfBits(static_cast<uint32_t>(value.bits) << 16);
}

template <typename T>
__device__ __forceinline__ T Rounded(float value);
template <>
__device__ __forceinline__ float Rounded<float>(float value) {
  return value;
}
// To the nearest, halves to even; a NaN stays one.
template <>
__device__ __forceinline__ BFloat16 Rounded<BFloat16>(float value) {
  const uint32_t bits = BitsOfFloat(value);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) {
    return {static_cast<uint16_t>((bits >> 16) | 0x40u)};
  }
  return {static_cast<uint16_t>((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16)};
}

// 16 bytes, or one element where rows are not aligned to them.
template <typename T, int kCount>
struct alignas(sizeof(T) * kCount) Pack {
  T values[kCount];
};

// The sum over the lanes of a warp, in one order; every lane gets it.
__device__ __forceinline__ float WarpSum(float value) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    value += __shfl_xor_sync(kAllLanes, value, offset);
  }
  return value;
}

__device__ __forceinline__ float WarpMax(float value) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, offset));
  }
  return value;
}

// The sum over a block of kThreads, in one order; every thread gets it.
template <int kThreads>
__device__ float BlockSum(float value) {
  __shared__ float parts[kThreads / kWarp];
  value = WarpSum(value);
  if (threadIdx.x % kWarp == 0) {
    parts[threadIdx.x / kWarp] = value;
  }
  __syncthreads();
  float sum = 0.0f;
  for (const float part : parts) {
    sum += part;
  }
  __syncthreads();  // before the next sum writes
  return sum;
}

}  // namespace tenon::cuda

#endif  // TENON_ADAPTERS_KERNELS_CUDA_ELEMENT_CUH_
