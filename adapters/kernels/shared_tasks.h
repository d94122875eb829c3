// SharedTasks: work that the threads of a job do together before they need its results. Internal to
// this folder.
#ifndef TENON_ADAPTERS_KERNELS_SHARED_TASKS_H_
#define TENON_ADAPTERS_KERNELS_SHARED_TASKS_H_

#include <atomic>
#include <cstdint>
#include <functional>

namespace tenon {

/// Tasks that belong to a job of KernelPool without being its tasks: whichever thread comes by
/// takes some, does other work of the job while others finish theirs, and waits when it needs all.
/// That saves a job of their own, with its beginning and its end. Thread-safe.
class SharedTasks {
 public:
  /// run(task, next) for 0 ... num_tasks - 1: `next` is what the thread is likely to take after it,
  /// maybe out of range. cost: of all, as for ParallelFor.
  SharedTasks(int64_t num_tasks, int64_t cost, std::function<void(int64_t task, int64_t next)> run);

  /// Runs tasks until all are taken: the caller of a job from the front, workers from the back.
  void Help();
  /// Helps, and returns when all have run.
  void Wait();

  int64_t cost() const { return cost_; }

 private:
  const int64_t num_tasks_, cost_;
  const std::function<void(int64_t, int64_t)> run_;
  std::atomic<uint64_t> taken_{0};  // from the front, and from the back in the upper half
  std::atomic<int64_t> unfinished_;
};

}  // namespace tenon

#endif  // TENON_ADAPTERS_KERNELS_SHARED_TASKS_H_
