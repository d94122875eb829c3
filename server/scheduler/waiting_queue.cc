#include "server/scheduler/waiting_queue.h"

#include <utility>

namespace tenon {

void WaitingQueue::Add(std::unique_ptr<Sequence> sequence) {
  const uint64_t ticket = sequence->ticket();
  by_ticket_.emplace(ticket, std::move(sequence));
}

Sequence* WaitingQueue::Next(absl::FunctionRef<bool(const Sequence&)> may_run) const {
  for (const auto& [ticket, sequence] : by_ticket_) {
    if (may_run(*sequence)) {
      return sequence.get();
    }
  }
  return nullptr;
}

std::unique_ptr<Sequence> WaitingQueue::Remove(const Sequence& sequence) {
  auto node = by_ticket_.extract(sequence.ticket());
  return node ? std::move(node.mapped()) : nullptr;
}

std::vector<Sequence*> WaitingQueue::sequences() const {
  std::vector<Sequence*> all;
  all.reserve(by_ticket_.size());
  for (const auto& [ticket, sequence] : by_ticket_) {
    all.push_back(sequence.get());
  }
  return all;
}

}  // namespace tenon
