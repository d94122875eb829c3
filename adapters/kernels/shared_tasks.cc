#include "adapters/kernels/shared_tasks.h"

#include <thread>
#include <utility>

#include "adapters/kernels/kernel_pool.h"

namespace tenon {

SharedTasks::SharedTasks(int64_t num_tasks, int64_t cost,
                         std::function<void(int64_t task, int64_t next)> run)
    : num_tasks_(num_tasks), cost_(cost), run_(std::move(run)), unfinished_(num_tasks) {}

void SharedTasks::Help() {
  constexpr int kHalf = 32;
  const bool from_front = KernelPool::Direction() > 0;
  const uint64_t claim = from_front ? 1 : uint64_t{1} << kHalf;
  uint64_t taken = taken_.load(std::memory_order_relaxed);
  for (;;) {
    const auto front = static_cast<int64_t>(taken & 0xffffffffu);
    const auto back = static_cast<int64_t>(taken >> kHalf);
    if (front + back >= num_tasks_) {
      return;
    }
    if (!taken_.compare_exchange_weak(taken, taken + claim, std::memory_order_relaxed)) {
      continue;
    }
    const int64_t task = from_front ? front : num_tasks_ - 1 - back;
    run_(task, task + KernelPool::Direction());
    unfinished_.fetch_sub(1, std::memory_order_release);
    taken = taken_.load(std::memory_order_relaxed);
  }
}

void SharedTasks::Wait() {
  constexpr int kLooks = 1000;  // before another thread gets the processor
  Help();
  for (int look = 0; unfinished_.load(std::memory_order_acquire) != 0; ++look) {
    if (look < kLooks) {
      Pause();
    } else {
      std::this_thread::yield();
    }
  }
}

}  // namespace tenon
