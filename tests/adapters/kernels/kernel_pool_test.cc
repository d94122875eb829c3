#include "adapters/kernels/kernel_pool.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
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

// Two threads that read neighbouring memory stay out of each other's.
TEST(KernelPoolTest, CallersTakeTasksFromTheFrontAndWorkersFromTheBack) {
  const std::thread::id caller = std::this_thread::get_id();
  for (int round = 0; round < 200; ++round) {
    std::vector<std::thread::id> ran_by(64);
    KernelPool::Get().Run(
        64, 3, [&](int64_t i) { ran_by[static_cast<size_t>(i)] = std::this_thread::get_id(); });
    const auto first_of_workers = std::find_if(ran_by.begin(), ran_by.end(),
                                               [&](std::thread::id id) { return id != caller; });
    EXPECT_EQ(std::count(first_of_workers, ran_by.end(), caller), 0);
  }
}

TEST(KernelPoolTest, RunsMoreTasksThanOneJobHolds) {
  constexpr int64_t kTasks = (int64_t{1} << 21) + 5;
  std::vector<uint8_t> runs(kTasks);
  KernelPool::Get().Run(kTasks, 1, [&](int64_t i) { ++runs[static_cast<size_t>(i)]; });
  EXPECT_EQ(std::count(runs.begin(), runs.end(), 1), kTasks);
}

TEST(KernelPoolTest, FetchesAheadWhateverTheMemory) {
  for (const int64_t bytes : {int64_t{0}, int64_t{1}, int64_t{100}, int64_t{1} << 30}) {
    auto memory = std::make_unique<char[]>(4096);
    KernelPool::Get().FetchWhileIdle(memory.get(), bytes);
    memory.reset();
    std::atomic<int64_t> sum(0);
    KernelPool::Get().Run(8, 2, [&](int64_t i) { sum += i; });
    std::this_thread::sleep_for(std::chrono::milliseconds(1));  // the workers are idle
    EXPECT_EQ(sum, 28);
  }
  KernelPool::Get().FetchWhileIdle(nullptr, 0);
}

}  // namespace
}  // namespace tenon
