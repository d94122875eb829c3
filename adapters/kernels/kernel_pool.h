// KernelPool: the threads under ParallelFor. Internal to this folder.
#ifndef TENON_ADAPTERS_KERNELS_KERNEL_POOL_H_
#define TENON_ADAPTERS_KERNELS_KERNEL_POOL_H_

#include <atomic>
#include <cstdint>
#include <mutex>

#include "absl/functional/function_ref.h"

namespace tenon {

/// Workers that take tasks of one job at a time. Unlike OpenMP's, the end of a job waits for the
/// tasks that a worker has begun and not for the workers: on a busy machine one that is not running
/// costs nothing. Workers look for the next job for a short time, then sleep.
///
/// Thread-safe: of several callers one has the workers, the others work alone. Lives as long as the
/// process.
class KernelPool {
 public:
  static KernelPool& Get();

  /// Runs the tasks on the caller's thread and on at most `num_workers` others, which are made when
  /// they are first wanted.
  void Run(int64_t num_tasks, int64_t num_workers, absl::FunctionRef<void(int64_t)> task);

  /// Whether the calling thread is in a task of a job.
  static bool InTask();

 private:
  using Task = absl::FunctionRef<void(int64_t)>;

  KernelPool() = default;
  void AddWorkers(int64_t count);
  void Work(int64_t worker);
  /// Takes and runs tasks of the job that is open until there are none left.
  void RunTasks();
  void WaitForWork(uint32_t seen);

  std::mutex owner_;         // held by the caller whose job it is
  int64_t num_workers_ = 0;  // guarded by owner_

  // The generation of the job in the upper half, its next task in the lower. A claim fails when the
  // job has changed, so what is read of a job before it is claimed may be stale, but is not used.
  alignas(64) std::atomic<uint64_t> state_{kClosed};
  std::atomic<int64_t> num_tasks_{0};
  std::atomic<int64_t> job_workers_{0};
  std::atomic<const Task*> task_{nullptr};
  alignas(64) std::atomic<uint32_t> unfinished_{0};
  alignas(64) std::atomic<uint32_t> jobs_{0};  // counts up, for sleepers

  static constexpr uint64_t kNoTask = 0xffffffff;
  static constexpr uint64_t kClosed = kNoTask;
};

}  // namespace tenon

#endif  // TENON_ADAPTERS_KERNELS_KERNEL_POOL_H_
