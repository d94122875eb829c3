#include "adapters/kernels/kernel_pool.h"

#include <algorithm>
#include <chrono>
#include <thread>

namespace tenon {
namespace {

// Between two jobs of a step there are some microseconds, between two steps some hundred.
constexpr std::chrono::microseconds kWorkerPatience(400);
// A caller whose tasks are all begun waits for the rest of one.
constexpr std::chrono::microseconds kCallerPatience(50);
// What a worker fetches while it waits: a part of its second-level cache.
constexpr int64_t kIdleFetchBytes = 512 * 1024;

thread_local bool in_task = false;
thread_local int64_t direction = 1;

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

// A worker's share of what the next job reads, fetched from its end on, as its tasks are taken.
class KernelPool::IdleFetch {
 public:
  explicit IdleFetch(int64_t worker) : worker_(worker) {}

  // Goes on where it was as long as the memory is the same.
  void Aim(const char* begin, int64_t bytes, int64_t num_workers) {
    if (begin == begin_ || worker_ >= num_workers) {
      return;
    }
    begin_ = begin;
    const int64_t share = std::min(kIdleFetchBytes, bytes / (num_workers + 1)) / kLine * kLine;
    next_ = begin + bytes - worker_ * share;
    rest_ = share;
  }
  void FetchSome() {
    for (int i = 0; i < kLinesAtOnce && rest_ > 0; ++i) {
      next_ -= kLine;
      rest_ -= kLine;
      __builtin_prefetch(next_, 0, 2);
    }
  }

 private:
  static constexpr int64_t kLine = 64;
  static constexpr int kLinesAtOnce = 16;  // between two looks for work

  int64_t worker_;
  const char* begin_ = nullptr;
  const char* next_ = nullptr;
  int64_t rest_ = 0;
};

KernelPool& KernelPool::Get() {
  // Never destroyed: its threads have no end.
  static KernelPool& pool = *new KernelPool();
  return pool;
}

bool KernelPool::InTask() { return in_task; }
int64_t KernelPool::Direction() { return direction; }

void KernelPool::AddWorkers(int64_t count) {
  for (; num_workers_ < count; ++num_workers_) {
    std::thread([this, worker = num_workers_] { Work(worker); }).detach();
  }
}

void KernelPool::RunTasks(End end) {
  in_task = true;
  direction = end == End::kFront ? 1 : -job_workers_.load(std::memory_order_relaxed);
  uint64_t state = state_.load(std::memory_order_acquire);
  for (;;) {
    const auto front = static_cast<int64_t>(state & kTakenMask);
    const auto back = static_cast<int64_t>(state >> kTakenBits & kTakenMask);
    const Task* const task = task_.load(std::memory_order_acquire);
    const int64_t num_tasks = num_tasks_.load(std::memory_order_acquire);
    if (front + back >= num_tasks) {
      break;
    }
    const uint64_t claim = end == End::kFront ? 1 : uint64_t{1} << kTakenBits;
    if (!state_.compare_exchange_weak(state, state + claim, std::memory_order_acq_rel,
                                      std::memory_order_acquire)) {
      continue;
    }
    (*task)(end == End::kFront ? front : num_tasks - 1 - back);
    if (unfinished_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
      unfinished_.notify_one();
    }
    state = state_.load(std::memory_order_acquire);
  }
  in_task = false;
  direction = 1;
}

void KernelPool::FetchWhileIdle(const void* begin, int64_t bytes) {
  idle_bytes_.store(bytes, std::memory_order_relaxed);
  idle_begin_.store(static_cast<const char*>(begin), std::memory_order_relaxed);
}

void KernelPool::WaitForWork(uint32_t seen, IdleFetch& fetch) {
  fetch.Aim(idle_begin_.load(std::memory_order_relaxed),
            idle_bytes_.load(std::memory_order_relaxed),
            job_workers_.load(std::memory_order_relaxed));
  const auto is_new = [&] {
    fetch.FetchSome();
    return jobs_.load(std::memory_order_acquire) != seen;
  };
  if (!SpinUntil(kWorkerPatience, is_new)) {
    jobs_.wait(seen, std::memory_order_acquire);
  }
}

void KernelPool::Work(int64_t worker) {
  IdleFetch fetch(worker);
  uint32_t seen = 0;
  for (;;) {
    WaitForWork(seen, fetch);
    seen = jobs_.load(std::memory_order_acquire);
    if (worker < job_workers_.load(std::memory_order_relaxed)) {
      RunTasks(End::kBack);
    }
  }
}

void KernelPool::Run(int64_t num_tasks, int64_t num_workers, Task task) {
  for (int64_t begin = 0; begin < num_tasks; begin += kMaxTasks) {
    const auto shifted = [&](int64_t i) { task(begin + i); };
    RunJob(std::min(kMaxTasks, num_tasks - begin), num_workers, shifted);
  }
}

void KernelPool::RunJob(int64_t num_tasks, int64_t num_workers, Task task) {
  const std::unique_lock<std::mutex> lock(owner_, std::try_to_lock);
  if (!lock.owns_lock()) {
    for (int64_t i = 0; i < num_tasks; ++i) {
      task(i);
    }
    return;
  }
  AddWorkers(num_workers);
  // The last job is over, and its state says so to whoever looks at it late.
  const uint64_t generation = (state_.load(std::memory_order_relaxed) >> 2 * kTakenBits) + 1;
  state_.store(generation << 2 * kTakenBits | kClosed, std::memory_order_release);
  task_.store(&task, std::memory_order_release);
  num_tasks_.store(num_tasks, std::memory_order_release);
  job_workers_.store(num_workers, std::memory_order_relaxed);
  unfinished_.store(static_cast<uint32_t>(num_tasks), std::memory_order_relaxed);
  state_.store((generation + 1) << 2 * kTakenBits, std::memory_order_release);
  jobs_.fetch_add(1, std::memory_order_acq_rel);
  jobs_.notify_all();
  RunTasks(End::kFront);
  const auto is_over = [&] { return unfinished_.load(std::memory_order_acquire) == 0; };
  while (!is_over() && !SpinUntil(kCallerPatience, is_over)) {
    if (const uint32_t rest = unfinished_.load(std::memory_order_acquire); rest != 0) {
      unfinished_.wait(rest, std::memory_order_acquire);
    }
  }
}

}  // namespace tenon
