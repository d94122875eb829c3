// SerialExecutor: one worker thread and its queue.
#ifndef TENON_SERVER_RPC_SERIAL_EXECUTOR_H_
#define TENON_SERVER_RPC_SERIAL_EXECUTOR_H_

#include <deque>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/synchronization/mutex.h"

namespace tenon {

/// Runs tasks one after another, in the order they were posted, on a thread of its own. Keeps what
/// takes time off the engine thread and off gRPC's pollers, and lets state that only its tasks
/// touch do without a lock.
///
/// Thread-safe. The queue is not bounded here: whoever posts has at most one task outstanding per
/// call in flight, and calls are bounded elsewhere. The destructor runs what is queued, then joins.
class SerialExecutor {
 public:
  SerialExecutor();
  ~SerialExecutor();
  SerialExecutor(const SerialExecutor&) = delete;
  SerialExecutor& operator=(const SerialExecutor&) = delete;

  void Post(absl::AnyInvocable<void()> task) ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  void Run() ABSL_LOCKS_EXCLUDED(mutex_);

  absl::Mutex mutex_;
  std::deque<absl::AnyInvocable<void()>> tasks_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;  // last: starts when everything above is there
};

}  // namespace tenon

#endif  // TENON_SERVER_RPC_SERIAL_EXECUTOR_H_
