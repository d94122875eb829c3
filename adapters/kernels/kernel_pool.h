// KernelPool: the threads under ParallelFor. Internal to this folder.
#ifndef TENON_ADAPTERS_KERNELS_KERNEL_POOL_H_
#define TENON_ADAPTERS_KERNELS_KERNEL_POOL_H_

#include <atomic>
#include <cstdint>
#include <mutex>
#include <thread>

#include "absl/functional/function_ref.h"

namespace tenon {

/// Between two looks at something that another thread is about to change.
inline void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

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

  /// What the tasks of a job soon to come will read, in their order. A worker that waits fetches
  /// what it is likely to get of that into its cache, at most 512 KiB. Memory that has gone does no
  /// harm.
  void FetchWhileIdle(const void* begin, int64_t bytes);

  /// Whether the calling thread is in a task of a job.
  static bool InTask();
  /// From the task that the calling thread is in to the one that it is likely to take next.
  static int64_t Direction();

 private:
  using Task = absl::FunctionRef<void(int64_t)>;

  KernelPool() = default;
  class IdleFetch;
  enum class End { kFront, kBack };

  void AddWorkers(int64_t count);
  void Work(int64_t worker);
  /// Takes and runs tasks of the job that is open until there are none left. Workers take them from
  /// the back, so that each end of what a job reads is read by one thread.
  void RunTasks(End end);
  /// At most kMaxTasks.
  void RunJob(int64_t num_tasks, int64_t num_workers, Task task);
  void WaitForWork(uint32_t seen, IdleFetch& fetch);

  std::mutex owner_;         // held by the caller whose job it is
  int64_t num_workers_ = 0;  // guarded by owner_

  // The generation of the job, and how many of its tasks have been taken from the back and from the
  // front. A claim fails when the job has changed, so what is read of a job before it is claimed
  // may be stale, but is not used.
  alignas(64) std::atomic<uint64_t> state_{kClosed};
  std::atomic<int64_t> num_tasks_{0};
  std::atomic<int64_t> job_workers_{0};
  std::atomic<const Task*> task_{nullptr};
  alignas(64) std::atomic<uint32_t> unfinished_{0};
  alignas(64) std::atomic<uint32_t> jobs_{0};  // counts up, for sleepers

  std::atomic<const char*> idle_begin_{nullptr};
  std::atomic<int64_t> idle_bytes_{0};

  static constexpr int kTakenBits = 20;
  static constexpr uint64_t kTakenMask = (uint64_t{1} << kTakenBits) - 1;
  static constexpr int64_t kMaxTasks = kTakenMask - 1;  // of one job
  static constexpr uint64_t kClosed = kTakenMask;       // more than any job has
};

}  // namespace tenon

#endif  // TENON_ADAPTERS_KERNELS_KERNEL_POOL_H_
