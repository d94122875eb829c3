// Stand-in for CUDA's own words, so that kernels compile as C++ and run on the host: included in
// front of every .cu file (-include). A block's threads are fibers that take turns at
// __syncthreads() and shuffles; blocks run one after another. For kernels in plain CUDA C++ and
// products of matrices (nvcuda::wmma) alone: no atomics, no dynamic shared memory.
#ifndef TENON_TESTS_DEVICE_HOST_CUDA_H_
#define TENON_TESTS_DEVICE_HOST_CUDA_H_

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <type_traits>
#include <utility>

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  dim3(unsigned x_in, unsigned y_in = 1, unsigned z_in = 1) : x(x_in), y(y_in), z(z_in) {}
};

enum cudaError_t { cudaSuccess = 0, cudaErrorIllegalState = 401 };
inline cudaError_t cudaPeekAtLastError() { return cudaSuccess; }
inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaSuccess ? "no error" : "no capture has begun, or one has already";
}

// A graph, before and behind its instantiation: what it runs, in order. There is one stream.
struct HostGraph;
using cudaStream_t = void*;
using cudaGraph_t = HostGraph*;
using cudaGraphExec_t = HostGraph*;
enum cudaStreamCaptureMode { cudaStreamCaptureModeThreadLocal };
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned flags);
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);

namespace tenon::host_cuda {

/// Where the running fiber stands.
struct Coordinates {
  dim3 grid{1}, block{1}, block_index{0}, thread_index{0};
};
extern Coordinates coordinates;

/// Runs `kernel` for every thread of every block. Blocks of up to 1024 threads; kernels that leave
/// a barrier to some of their threads, or end early where others wait, abort with a message.
void Launch(dim3 grid, dim3 block, const std::function<void()>& kernel);

/// Whether what is given to the device is recorded and not run.
bool IsCapturing();
/// Runs `work`, or records it for the graph that is being captured: on its later launches.
void RunOrRecord(std::function<void()> work);

/// Waits for all threads of the block that have not ended.
void SyncBlock();
/// Gives `value` to the warp and returns that of lane `lane`. All lanes of the warp take part.
uint32_t Exchange(uint32_t value, unsigned lane);
unsigned Lane();

/// Waits for all lanes of the warp.
inline void SyncWarp() { Exchange(0, 0); }
/// Aborts where a matrix may not begin, or its rows may not.
void CheckMatrix(const void* at, size_t row_bytes);

template <typename T>
T ShuffleFrom(T value, unsigned lane) {
  static_assert(sizeof(T) == sizeof(uint32_t));
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  bits = Exchange(bits, lane);
  std::memcpy(&value, &bits, sizeof(bits));
  return value;
}

}  // namespace tenon::host_cuda

// Products of 16 x 16 matrices: here each lane has the whole of each, and lane 0 stores.
struct __nv_bfloat16 {
  uint16_t bits;
};

namespace nvcuda::wmma {

struct matrix_a {};
struct matrix_b {};
struct accumulator {};
struct row_major {};
struct col_major {};
enum layout_t { mem_row_major };

template <typename Use, int kM, int kN, int kK, typename T, typename Layout = void>
struct fragment {
  static_assert(kM == 16 && kN == 16 && kK == 16);
  float elements[16][16];
};

template <typename Use, typename T, typename Layout>
void load_matrix_sync(fragment<Use, 16, 16, 16, T, Layout>& to, const T* from, unsigned stride) {
  ::tenon::host_cuda::CheckMatrix(from, stride * sizeof(T));
  for (unsigned row = 0; row < 16; ++row) {
    for (unsigned column = 0; column < 16; ++column) {
      const uint32_t bits = uint32_t{from[row * stride + column].bits} << 16;
      const bool is_transposed = std::is_same_v<Layout, col_major>;
      std::memcpy(is_transposed ? &to.elements[column][row] : &to.elements[row][column], &bits,
                  sizeof(bits));
    }
  }
}

using Sums = fragment<accumulator, 16, 16, 16, float>;

inline void load_matrix_sync(Sums& to, const float* from, unsigned stride, layout_t) {
  ::tenon::host_cuda::CheckMatrix(from, stride * sizeof(float));
  for (unsigned row = 0; row < 16; ++row) {
    std::memcpy(to.elements[row], from + row * stride, sizeof(to.elements[row]));
  }
}

inline void store_matrix_sync(float* to, const Sums& from, unsigned stride, layout_t) {
  ::tenon::host_cuda::CheckMatrix(to, stride * sizeof(float));
  ::tenon::host_cuda::SyncWarp();  // all have loaded what this may overwrite
  for (unsigned row = 0; row < 16 && ::tenon::host_cuda::Lane() == 0; ++row) {
    std::memcpy(to + row * stride, from.elements[row], sizeof(from.elements[row]));
  }
}

inline void fill_fragment(Sums& sums, float value) {
  for (auto& row : sums.elements) {
    for (float& element : row) {
      element = value;
    }
  }
}

template <typename A, typename B>
void mma_sync(Sums& to, const A& a, const B& b, const Sums& sums) {
  for (unsigned row = 0; row < 16; ++row) {
    for (unsigned column = 0; column < 16; ++column) {
      float sum = sums.elements[row][column];
      for (unsigned k = 0; k < 16; ++k) {
        sum += a.elements[row][k] * b.elements[k][column];
      }
      to.elements[row][column] = sum;
    }
  }
}

}  // namespace nvcuda::wmma

#define __global__
#define __device__
#define __forceinline__ inline
#define __shared__ static  // blocks run one after another
#define threadIdx (::tenon::host_cuda::coordinates.thread_index)
#define blockIdx (::tenon::host_cuda::coordinates.block_index)
#define blockDim (::tenon::host_cuda::coordinates.block)
#define gridDim (::tenon::host_cuda::coordinates.grid)
#define __syncthreads() ::tenon::host_cuda::SyncBlock()
#define __syncwarp() ::tenon::host_cuda::SyncWarp()
#define __fmul_rn(a, b) ((a) * (b))
#define __shfl_sync(mask, value, lane) ::tenon::host_cuda::ShuffleFrom(value, lane)
#define __shfl_xor_sync(mask, value, bits) \
  ::tenon::host_cuda::ShuffleFrom(value, ::tenon::host_cuda::Lane() ^ static_cast<unsigned>(bits))
#define TENON_LAUNCH(kernel, grid, block, stream, ...)                                  \
  (static_cast<void>(stream), ::tenon::host_cuda::RunOrRecord([=, shape = dim3(grid)] { \
     ::tenon::host_cuda::Launch(shape, block, [&] { kernel(__VA_ARGS__); });            \
   }))

#endif  // TENON_TESTS_DEVICE_HOST_CUDA_H_
