#include "adapters/kernels/kernel_pool.h"

#include <chrono>
#include <thread>

namespace tenon {
namespace {

// Between two jobs of a step there are some microseconds, between two steps some hundred.
constexpr std::chrono::microseconds kWorkerPatience(400);
// A caller whose tasks are all begun waits for the rest of one.
constexpr std::chrono::microseconds kCallerPatience(50);

thread_local bool in_task = false;

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

// Looks at `done` for a while. False: it did not come.
template <typename Done>
bool SpinUntil(std::chrono::microseconds patience, const Done& done) {
  constexpr int kLooksPerClock = 64;
  const auto give_up = std::chrono::steady_clock::now() + patience;
  do {
    for (int i = 0; i < kLooksPerClock; ++i) {
      if (done()) {
        return true;
      }
      Pause();
    }
  } while (std::chrono::steady_clock::now() < give_up);
  return done();
}

}  // namespace

KernelPool& KernelPool::Get() {
  // Never destroyed: its threads have no end.
  static KernelPool& pool = *new KernelPool();
  return pool;
}

bool KernelPool::InTask() { return in_task; }

void KernelPool::AddWorkers(int64_t count) {
  for (; num_workers_ < count; ++num_workers_) {
    std::thread([this, worker = num_workers_] { Work(worker); }).detach();
  }
}

void KernelPool::RunTasks() {
  in_task = true;
  uint64_t state = state_.load(std::memory_order_acquire);
  for (;;) {
    const auto next = static_cast<int64_t>(state & kNoTask);
    const Task* const task = task_.load(std::memory_order_acquire);
    if (next >= num_tasks_.load(std::memory_order_acquire)) {
      break;
    }
    if (!state_.compare_exchange_weak(state, state + 1, std::memory_order_acq_rel,
                                      std::memory_order_acquire)) {
      continue;
    }
    (*task)(next);
    if (unfinished_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
      unfinished_.notify_one();
    }
    state = state_.load(std::memory_order_acquire);
  }
  in_task = false;
}

void KernelPool::WaitForWork(uint32_t seen) {
  const auto is_new = [&] { return jobs_.load(std::memory_order_acquire) != seen; };
  if (!SpinUntil(kWorkerPatience, is_new)) {
    jobs_.wait(seen, std::memory_order_acquire);
  }
}

void KernelPool::Work(int64_t worker) {
  uint32_t seen = 0;
  for (;;) {
    WaitForWork(seen);
    seen = jobs_.load(std::memory_order_acquire);
    if (worker < job_workers_.load(std::memory_order_relaxed)) {
      RunTasks();
    }
  }
}

void KernelPool::Run(int64_t num_tasks, int64_t num_workers, Task task) {
  const std::unique_lock<std::mutex> lock(owner_, std::try_to_lock);
  if (!lock.owns_lock()) {
    for (int64_t i = 0; i < num_tasks; ++i) {
      task(i);
    }
    return;
  }
  AddWorkers(num_workers);
  // The last job is over, and its state says so to whoever looks at it late.
  const uint64_t generation = (state_.load(std::memory_order_relaxed) >> 32) + 1;
  state_.store(generation << 32 | kNoTask, std::memory_order_release);
  task_.store(&task, std::memory_order_release);
  num_tasks_.store(num_tasks, std::memory_order_release);
  job_workers_.store(num_workers, std::memory_order_relaxed);
  unfinished_.store(static_cast<uint32_t>(num_tasks), std::memory_order_relaxed);
  state_.store((generation + 1) << 32, std::memory_order_release);
  jobs_.fetch_add(1, std::memory_order_acq_rel);
  jobs_.notify_all();
  RunTasks();
  const auto is_over = [&] { return unfinished_.load(std::memory_order_acquire) == 0; };
  while (!is_over() && !SpinUntil(kCallerPatience, is_over)) {
    if (const uint32_t rest = unfinished_.load(std::memory_order_acquire); rest != 0) {
      unfinished_.wait(rest, std::memory_order_acquire);
    }
  }
}

}  // namespace tenon
