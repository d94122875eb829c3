// Compiled with OpenMP, as LibTorch's own threads are; without it at::parallel_for is a plain loop.
#include "adapters/kernels/parallel.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>

namespace tenon {
namespace {

// Entering and leaving a parallel region costs some microseconds; a thread should have several
// times that to do.
constexpr int64_t kMinCostPerThread = 15'000;

}  // namespace

int64_t NumKernelThreads() { return at::get_num_threads(); }

void ParallelFor(int64_t num_tasks, int64_t task_cost, absl::FunctionRef<void(int64_t)> task) {
  const int64_t useful =
      std::min(num_tasks, num_tasks * std::max<int64_t>(task_cost, 1) / kMinCostPerThread);
  const int64_t threads = std::min(useful, NumKernelThreads());
  if (threads <= 1) {
    for (int64_t i = 0; i < num_tasks; ++i) {
      task(i);
    }
    return;
  }
  std::atomic<int64_t> next(0);
  at::parallel_for(0, threads, 1, [&](int64_t, int64_t) {
    for (int64_t i = next++; i < num_tasks; i = next++) {
      task(i);
    }
  });
}

}  // namespace tenon
