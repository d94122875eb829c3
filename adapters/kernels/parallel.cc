#include "adapters/kernels/parallel.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>

#include "adapters/kernels/kernel_pool.h"
#include "adapters/kernels/serial_scope.h"

namespace tenon {
namespace {

// Entering and leaving a job costs about a microsecond while the threads are awake, as they are
// between the jobs of a step; a thread should have several times that to do.
constexpr int64_t kMinCostPerThread = 6'000;

std::atomic<int64_t>& Count() {
  static std::atomic<int64_t> count(at::get_num_threads());
  return count;
}

}  // namespace

int64_t NumKernelThreads() { return Count().load(std::memory_order_relaxed); }

void SetNumKernelThreads(int64_t count) { Count().store(std::max<int64_t>(count, 1)); }

void FetchWhileIdle(const void* begin, int64_t bytes) {
  KernelPool::Get().FetchWhileIdle(begin, bytes);
}

int64_t LikelyNextTask(int64_t task) { return task + KernelPool::Direction(); }

void ParallelFor(int64_t num_tasks, int64_t task_cost, absl::FunctionRef<void(int64_t)> task) {
  const int64_t useful =
      std::min(num_tasks, num_tasks * std::max<int64_t>(task_cost, 1) / kMinCostPerThread);
  const int64_t threads = std::min(useful, NumKernelThreads());
  if (threads <= 1 || KernelPool::InTask() || SerialScope::IsActive()) {
    for (int64_t i = 0; i < num_tasks; ++i) {
      task(i);
    }
    return;
  }
  KernelPool::Get().Run(num_tasks, threads - 1, task);
}

}  // namespace tenon
