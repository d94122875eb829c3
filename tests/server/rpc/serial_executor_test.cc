#include "server/rpc/serial_executor.h"

#include <gtest/gtest.h>

#include <numeric>
#include <thread>
#include <vector>

#include "absl/synchronization/notification.h"

namespace tenon {
namespace {

TEST(SerialExecutorTest, RunsTasksInTheOrderOfPosting) {
  std::vector<int> order;
  {
    SerialExecutor executor;
    for (int i = 0; i < 1000; ++i) {
      executor.Post([&order, i] { order.push_back(i); });
    }
  }
  std::vector<int> expected(1000);
  std::iota(expected.begin(), expected.end(), 0);
  EXPECT_EQ(order, expected);
}

TEST(SerialExecutorTest, RunsOnAThreadOfItsOwn) {
  std::thread::id id;
  {
    SerialExecutor executor;
    executor.Post([&id] { id = std::this_thread::get_id(); });
  }
  EXPECT_NE(id, std::this_thread::get_id());
  EXPECT_NE(id, std::thread::id());
}

TEST(SerialExecutorTest, TasksMayPostTasks) {
  absl::Notification done;
  SerialExecutor executor;
  executor.Post([&] { executor.Post([&] { done.Notify(); }); });
  done.WaitForNotification();
}

TEST(SerialExecutorTest, PostersOnManyThreadsNeedNoLockForWhatTasksShare) {
  constexpr int kThreads = 8;
  constexpr int kTasks = 500;
  int count = 0;  // touched by tasks only
  {
    SerialExecutor executor;
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&] {
        for (int i = 0; i < kTasks; ++i) {
          executor.Post([&count] { ++count; });
        }
      });
    }
    for (std::thread& thread : threads) {
      thread.join();
    }
  }
  EXPECT_EQ(count, kThreads * kTasks);
}

}  // namespace
}  // namespace tenon
