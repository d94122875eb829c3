#include "adapters/kernels/parallel.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

namespace tenon {
namespace {

TEST(ParallelForTest, RunsEveryTaskOnce) {
  for (const int64_t cost : {0, 1'000'000}) {
    for (const int64_t num_tasks : {0, 1, 2, 7, 1000}) {
      std::vector<std::atomic<int>> runs(static_cast<size_t>(num_tasks));
      ParallelFor(num_tasks, cost, [&](int64_t i) { ++runs[static_cast<size_t>(i)]; });
      for (const std::atomic<int>& count : runs) {
        ASSERT_EQ(count, 1);
      }
    }
  }
}

TEST(ParallelForTest, CheapTasksStayOnTheCallersThread) {
  const std::thread::id caller = std::this_thread::get_id();
  ParallelFor(100, 10, [&](int64_t) { EXPECT_EQ(std::this_thread::get_id(), caller); });
}

TEST(ParallelForTest, CostlyTasksUseAllThreads) {
  const int64_t threads = NumKernelThreads();
  if (threads < 2) {
    GTEST_SKIP() << "one thread";
  }
  // Each task waits until all have begun: with fewer threads than tasks this would not end.
  std::atomic<int64_t> begun(0);
  ParallelFor(threads, 1'000'000'000, [&](int64_t) {
    ++begun;
    while (begun < threads) {
      std::this_thread::yield();
    }
  });
  EXPECT_EQ(begun, threads);
}

TEST(ParallelForTest, AThreadsNextTaskIsTheLikelyOne) {
  const int64_t threads = NumKernelThreads();
  constexpr int64_t kTasks = 1000;
  thread_local int64_t expected;
  std::atomic<int64_t> likely(0);
  const auto visit = [&](int64_t task) {
    likely += task == expected ? 1 : 0;
    expected = LikelyNextTask(task);
  };
  ParallelFor(kTasks, 0, visit);  // on this thread alone: all but the first
  EXPECT_GE(likely, kTasks - 1);
  if (threads == 2) {  // a caller from the front and one worker from the back
    likely = 0;
    ParallelFor(kTasks, 1'000'000, visit);
    EXPECT_GE(likely, kTasks - threads);
  }
}

TEST(ParallelForTest, NestedCallRunsEveryTask) {
  std::atomic<int> runs(0);
  ParallelFor(4, 1'000'000, [&](int64_t) { ParallelFor(5, 1'000'000, [&](int64_t) { ++runs; }); });
  EXPECT_EQ(runs, 20);
}

}  // namespace
}  // namespace tenon
