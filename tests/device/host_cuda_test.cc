// What the CUDA kernels rely on when they run on the host.
#include "tests/device/host_cuda.h"

#include <gtest/gtest.h>

#include <vector>

namespace tenon {
namespace {

TEST(HostCudaTest, EveryThreadOfEveryBlockRunsOnce) {
  std::vector<int> runs(3 * 2 * 96);
  int* const counts = runs.data();
  TENON_LAUNCH(([](int* c) { ++c[(blockIdx.y * 3 + blockIdx.x) * 96 + threadIdx.x]; }), dim3(3, 2),
               96, nullptr, counts);
  EXPECT_EQ(runs, std::vector<int>(3 * 2 * 96, 1));
}

TEST(HostCudaTest, BarriersSeparateWritesFromReads) {
  std::vector<int> result(64);
  int* const out = result.data();
  TENON_LAUNCH(([](int* o) {
                 __shared__ int values[64];
                 values[threadIdx.x] = static_cast<int>(threadIdx.x);
                 __syncthreads();
                 o[threadIdx.x] = values[63 - threadIdx.x];
               }),
               1, 64, nullptr, out);
  for (int i = 0; i < 64; ++i) {
    EXPECT_EQ(result[i], 63 - i);
  }
}

TEST(HostCudaTest, ShufflesStayWithinTheirWarp) {
  std::vector<float> result(64);
  float* const out = result.data();
  TENON_LAUNCH(([](float* o) {
                 float sum = static_cast<float>(threadIdx.x);
                 for (int bits = 16; bits > 0; bits /= 2) {
                   sum += __shfl_xor_sync(0xFFFFFFFFu, sum, bits);
                 }
                 o[threadIdx.x] = sum + __shfl_sync(0xFFFFFFFFu, sum, 3);
               }),
               1, 64, nullptr, out);
  EXPECT_EQ(result[0], 2 * 496.0f);               // 0 + ... + 31
  EXPECT_EQ(result[63], 2 * (496.0f + 1024.0f));  // 32 + ... + 63
}

TEST(HostCudaDeathTest, BarrierThatSomeThreadsSkipInAWarpShuffleAborts) {
  EXPECT_DEATH(TENON_LAUNCH(([] {
                              if (threadIdx.x > 0) {
                                static_cast<void>(__shfl_sync(0xFFFFFFFFu, 1.0f, 0));
                              }
                            }),
                            1, 32, nullptr),
               "wait for others");
}

}  // namespace
}  // namespace tenon
