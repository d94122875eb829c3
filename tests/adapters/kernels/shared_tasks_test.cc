#include "adapters/kernels/shared_tasks.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <thread>
#include <vector>

#include "adapters/kernels/kernel_pool.h"

namespace tenon {
namespace {

TEST(SharedTasksTest, EachHasRunOnceWhenAThreadOfTheJobNeedsThem) {
  constexpr int64_t kShared = 37, kTasks = 8;
  for (int round = 0; round < 300; ++round) {
    std::vector<int> results(kShared);  // not atomic: Wait makes them visible
    SharedTasks shared(kShared, 0,
                       [&](int64_t task, int64_t) { ++results[static_cast<size_t>(task)]; });
    std::vector<int64_t> sums(kTasks);
    KernelPool::Get().Run(kTasks, 3, [&](int64_t task) {
      shared.Help();
      shared.Wait();
      for (const int result : results) {
        sums[static_cast<size_t>(task)] += result == 1;
      }
    });
    EXPECT_EQ(sums, std::vector<int64_t>(kTasks, kShared));
  }
}

TEST(SharedTasksTest, OneThreadRunsThemInOrder) {
  std::vector<int64_t> order, announced;
  SharedTasks shared(4, 0, [&](int64_t task, int64_t next) {
    order.push_back(task);
    announced.push_back(next);
  });
  shared.Wait();
  shared.Wait();  // nothing is left
  EXPECT_EQ(order, (std::vector<int64_t>{0, 1, 2, 3}));
  EXPECT_EQ(announced, (std::vector<int64_t>{1, 2, 3, 4}));
}

TEST(SharedTasksTest, WorkersBeginAtTheBack) {
  const std::thread::id caller = std::this_thread::get_id();
  constexpr int64_t kShared = 1000;
  std::vector<std::thread::id> ran_by(kShared);
  SharedTasks shared(kShared, 0, [&](int64_t task, int64_t) {
    ran_by[static_cast<size_t>(task)] = std::this_thread::get_id();
  });
  KernelPool::Get().Run(2, 1, [&](int64_t) { shared.Wait(); });
  int changes = 0;
  for (size_t i = 1; i < kShared; ++i) {
    changes += (ran_by[i] == caller) != (ran_by[i - 1] == caller);
  }
  EXPECT_LE(changes, 1);
}

TEST(SharedTasksTest, NoneAreDoneAtOnce) {
  SharedTasks shared(0, 0, [](int64_t, int64_t) { FAIL(); });
  shared.Help();
  shared.Wait();
}

}  // namespace
}  // namespace tenon
