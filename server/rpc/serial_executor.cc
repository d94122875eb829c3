#include "server/rpc/serial_executor.h"

#include <utility>

namespace tenon {

SerialExecutor::SerialExecutor() : thread_([this] { Run(); }) {}

SerialExecutor::~SerialExecutor() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  thread_.join();
}

void SerialExecutor::Post(absl::AnyInvocable<void()> task) {
  absl::MutexLock lock(&mutex_);
  tasks_.push_back(std::move(task));
}

void SerialExecutor::Run() {
  const auto has_work = [this]() ABSL_SHARED_LOCKS_REQUIRED(mutex_) {
    return stopping_ || !tasks_.empty();
  };
  while (true) {
    std::deque<absl::AnyInvocable<void()>> taken;
    {
      absl::MutexLock lock(&mutex_, absl::Condition(&has_work));
      if (tasks_.empty()) {
        return;
      }
      taken.swap(tasks_);
    }
    for (absl::AnyInvocable<void()>& task : taken) {
      std::exchange(task, nullptr)();  // what it holds goes with it
    }
  }
}

}  // namespace tenon
