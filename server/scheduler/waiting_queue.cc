#include "server/scheduler/waiting_queue.h"

#include <utility>

namespace tenon {

void WaitingQueue::Add(std::unique_ptr<Sequence> sequence) {
  const uint64_t ticket = sequence->ticket();
  by_flow_[sequence->flow()].emplace(ticket, sequence.get());
  by_ticket_.emplace(ticket, std::move(sequence));
}

Sequence* WaitingQueue::First(const Flow& flow, absl::FunctionRef<bool(const Sequence&)> may_run) {
  for (const auto& [ticket, sequence] : flow) {
    if (may_run(*sequence)) {
      return sequence;
    }
  }
  return nullptr;
}

Sequence* WaitingQueue::Next(absl::FunctionRef<bool(const Sequence&)> may_run) const {
  Sequence* next = nullptr;
  for (const auto& [flow, waiting] : by_flow_) {
    if (next != nullptr && !fair_->Before(*flow, *next->flow())) {
      continue;
    }
    if (Sequence* const first = First(waiting, may_run); first != nullptr) {
      next = first;
    }
  }
  return next;
}

std::vector<FairShare::Flow*> WaitingQueue::FlowsThatWait(
    absl::FunctionRef<bool(const Sequence&)> may_run) const {
  std::vector<FairShare::Flow*> flows;
  for (const auto& [flow, waiting] : by_flow_) {
    if (First(waiting, may_run) != nullptr) {
      flows.push_back(flow);
    }
  }
  return flows;
}

std::unique_ptr<Sequence> WaitingQueue::Remove(const Sequence& sequence) {
  auto node = by_ticket_.extract(sequence.ticket());
  if (!node) {
    return nullptr;
  }
  const auto flow = by_flow_.find(sequence.flow());
  flow->second.erase(sequence.ticket());
  if (flow->second.empty()) {
    by_flow_.erase(flow);
  }
  return std::move(node.mapped());
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
