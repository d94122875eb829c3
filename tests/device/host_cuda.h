// Stand-in for CUDA's own words, so that kernels compile as C++ and run on the host: included in
// front of every .cu file (-include). A block's threads are fibers that take turns at
// __syncthreads() and shuffles; blocks run one after another. For kernels in plain CUDA C++ alone:
// no tensor cores, no atomics, no dynamic shared memory.
#ifndef TENON_TESTS_DEVICE_HOST_CUDA_H_
#define TENON_TESTS_DEVICE_HOST_CUDA_H_

#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
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

#define __global__
#define __device__
#define __forceinline__ inline
#define __shared__ static  // blocks run one after another
#define threadIdx (::tenon::host_cuda::coordinates.thread_index)
#define blockIdx (::tenon::host_cuda::coordinates.block_index)
#define blockDim (::tenon::host_cuda::coordinates.block)
#define gridDim (::tenon::host_cuda::coordinates.grid)
#define __syncthreads() ::tenon::host_cuda::SyncBlock()
#define __fmul_rn(a, b) ((a) * (b))
#define __shfl_sync(mask, value, lane) ::tenon::host_cuda::ShuffleFrom(value, lane)
#define __shfl_xor_sync(mask, value, bits) \
  ::tenon::host_cuda::ShuffleFrom(value, ::tenon::host_cuda::Lane() ^ static_cast<unsigned>(bits))
#define TENON_LAUNCH(kernel, grid, block, stream, ...)                                  \
  (static_cast<void>(stream), ::tenon::host_cuda::RunOrRecord([=, shape = dim3(grid)] { \
     ::tenon::host_cuda::Launch(shape, block, [&] { kernel(__VA_ARGS__); });            \
   }))

#endif  // TENON_TESTS_DEVICE_HOST_CUDA_H_
