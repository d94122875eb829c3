// WaitingQueue: sequences that have no place in the batch, and the order in which they get one.
#ifndef TENON_SERVER_SCHEDULER_WAITING_QUEUE_H_
#define TENON_SERVER_SCHEDULER_WAITING_QUEUE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "server/scheduler/sequence.h"

namespace tenon {

/// First-come, first-served by ticket: a preempted sequence comes back to the place that its
/// arrival gives it. The one class to replace for another order of service.
///
/// Not thread-safe (engine thread).
class WaitingQueue {
 public:
  void Add(std::unique_ptr<Sequence> sequence);

  /// The first sequence in order of service for which `may_run` holds, or null. It stays queued.
  Sequence* Next(absl::FunctionRef<bool(const Sequence&)> may_run) const;

  /// Takes out a queued sequence.
  std::unique_ptr<Sequence> Remove(const Sequence& sequence);

  /// All of them, in order of service.
  std::vector<Sequence*> sequences() const;
  int64_t size() const { return static_cast<int64_t>(by_ticket_.size()); }

 private:
  std::map<uint64_t, std::unique_ptr<Sequence>> by_ticket_;
};

}  // namespace tenon

#endif  // TENON_SERVER_SCHEDULER_WAITING_QUEUE_H_
