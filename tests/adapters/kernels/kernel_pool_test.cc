#include "adapters/kernels/kernel_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>
#include <vector>

namespace tenon {
namespace {

TEST(KernelPoolTest, RunsEveryTaskOnceForSeveralCallers) {
  std::vector<std::thread> callers;
  std::atomic<int64_t> wrong(0);
  for (int caller = 0; caller < 2; ++caller) {
    callers.emplace_back([&wrong] {
      for (int round = 0; round < 5000; ++round) {
        const int64_t num_tasks = 1 + round % 37;
        // Plain integers: a task that ran twice or was not waited for is a race.
        std::vector<int> runs(static_cast<size_t>(num_tasks));
        KernelPool::Get().Run(num_tasks, 1 + round % 4,
                              [&](int64_t i) { ++runs[static_cast<size_t>(i)]; });
        for (const int count : runs) {
          wrong += count != 1;
        }
        if (round % 1000 == 0) {  // longer than a worker looks for work
          std::this_thread::sleep_for(std::chrono::milliseconds(2));
        }
      }
    });
  }
  for (std::thread& caller : callers) {
    caller.join();
  }
  EXPECT_EQ(wrong, 0);
}

// A job is over when its tasks are, although a worker of it may have begun none: the caller takes
// them all while the workers' only processor time is spent elsewhere.
TEST(KernelPoolTest, WaitsForTasksAndNotForWorkers) {
  std::atomic<bool> stop(false);
  std::vector<std::thread> neighbours;
  for (unsigned int i = 0; i < 4 * std::thread::hardware_concurrency(); ++i) {
    neighbours.emplace_back([&stop] {
      while (!stop) {
      }
    });
  }
  std::atomic<int64_t> sum(0);
  for (int round = 0; round < 50; ++round) {
    KernelPool::Get().Run(8, 3, [&](int64_t i) { sum += i; });
  }
  stop = true;
  for (std::thread& neighbour : neighbours) {
    neighbour.join();
  }
  EXPECT_EQ(sum, 50 * 28);
}

TEST(KernelPoolTest, SaysThatATaskIsRunning) {
  EXPECT_FALSE(KernelPool::InTask());
  std::atomic<int> inside(0);
  KernelPool::Get().Run(4, 1, [&](int64_t) { inside += KernelPool::InTask(); });
  EXPECT_EQ(inside, 4);
  EXPECT_FALSE(KernelPool::InTask());
}

}  // namespace
}  // namespace tenon
