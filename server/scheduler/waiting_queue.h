// WaitingQueue: sequences that have no place in the batch, and the order in which they get one.
#ifndef TENON_SERVER_SCHEDULER_WAITING_QUEUE_H_
#define TENON_SERVER_SCHEDULER_WAITING_QUEUE_H_

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/functional/function_ref.h"
#include "server/scheduler/fair_share.h"
#include "server/scheduler/sequence.h"

namespace tenon {

/// Flow by flow as FairShare orders them; within a flow first-come, first-served by ticket: a
/// preempted sequence comes back to the place that its arrival gives it.
///
/// Not thread-safe (engine thread).
class WaitingQueue {
 public:
  /// `fair` is borrowed and outlives the queue.
  explicit WaitingQueue(const FairShare* fair) : fair_(fair) {}

  void Add(std::unique_ptr<Sequence> sequence);

  /// The first sequence in order of service for which `may_run` holds, or null. It stays queued.
  Sequence* Next(absl::FunctionRef<bool(const Sequence&)> may_run) const;

  /// The flows with a sequence for which `may_run` holds, in no order.
  std::vector<FairShare::Flow*> FlowsThatWait(
      absl::FunctionRef<bool(const Sequence&)> may_run) const;

  /// Takes out a queued sequence.
  std::unique_ptr<Sequence> Remove(const Sequence& sequence);

  /// All of them, in order of arrival.
  std::vector<Sequence*> sequences() const;
  int64_t size() const { return static_cast<int64_t>(by_ticket_.size()); }

 private:
  using Flow = std::map<uint64_t, Sequence*>;  // by ticket

  static Sequence* First(const Flow& flow, absl::FunctionRef<bool(const Sequence&)> may_run);

  const FairShare* const fair_;
  std::map<uint64_t, std::unique_ptr<Sequence>> by_ticket_;
  absl::flat_hash_map<FairShare::Flow*, Flow> by_flow_;
};

}  // namespace tenon

#endif  // TENON_SERVER_SCHEDULER_WAITING_QUEUE_H_
