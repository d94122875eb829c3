// Scheduler: the rows of a step, and the room that they need.
#include <algorithm>
#include <utility>

#include "server/scheduler/scheduler.h"

namespace tenon {

Batch Scheduler::Schedule(absl::Time now) {
  std::vector<Sequence*> active = ActiveSequences();
  StepPlan plan(++num_planned_, now, options_.max_batch_tokens, active);
  PlaceRunning(std::move(active), plan);
  BoundPrefills(plan);
  PlanPrefills(plan);
  Settle(plan);
  ChargeWaiting(now);
  Batch batch = plan.Build(running_);
  batch.recycled_blocks = pool_->TakeRecycled();
  return batch;
}

std::vector<Sequence*> Scheduler::ActiveSequences() const {
  std::vector<Sequence*> active;
  for (const std::unique_ptr<Sequence>& sequence : running_) {
    if (!sequence->blocked()) {
      active.push_back(sequence.get());
    }
  }
  return active;
}

void Scheduler::PlaceRunning(std::vector<Sequence*> active, StepPlan& plan) {
  const int64_t num_active = static_cast<int64_t>(active.size());
  if (num_active <= options_.max_sequences) {
    for (Sequence* sequence : active) {
      Place(sequence, plan);
    }
    return;
  }
  // The oldest first, then flow by flow in fair order; within each who has waited longest for a
  // row, then the oldest. Prefills for which there will be no tokens take no place.
  Place(active.front(), plan);
  absl::flat_hash_map<FairShare::Flow*, std::vector<Sequence*>> by_flow;  // the next one last
  for (int64_t i = num_active; --i > 0;) {
    by_flow[active[i]->flow_].push_back(active[i]);
  }
  for (auto& [flow, sequences] : by_flow) {
    std::stable_sort(sequences.begin(), sequences.end(), [](const Sequence* a, const Sequence* b) {
      return a->last_row_ > b->last_row_;
    });
  }
  while (!by_flow.empty() && plan.num_places() < options_.max_sequences) {
    const auto next = std::min_element(
        by_flow.begin(), by_flow.end(),
        [this](const auto& a, const auto& b) { return fair_.Before(*a.first, *b.first); });
    Sequence* const sequence = next->second.back();
    next->second.pop_back();
    if (next->second.empty()) {
      by_flow.erase(next);
    }
    if (IsDecode(*sequence) || plan.NumPrefillTokens() < plan.tokens_left) {
      Place(sequence, plan);
    }
  }
}

void Scheduler::Place(Sequence* sequence, StepPlan& plan) {
  if (!sequence->running_) {
    return;  // preempted meanwhile
  }
  if (IsDecode(*sequence)) {
    PlanRow(sequence, plan);
  } else {
    plan.prefills.push_back(sequence);
  }
}

bool Scheduler::IsDecode(const Sequence& sequence) {
  return (sequence.context_ == nullptr || sequence.context_->computed()) &&
         sequence.num_uncomputed_tokens() == 1;
}

void Scheduler::BoundPrefills(StepPlan& plan) const {
  constexpr int64_t kPrefillTokensPerDecode = 1, kMaxChunks = 8;
  const auto num_decodes = static_cast<int64_t>(plan.rows.size());
  if (options_.prefill_chunk_tokens == 0 || num_decodes == 0) {
    return;
  }
  const int64_t num_prefills = static_cast<int64_t>(plan.prefills.size()) + waiting_.size();
  const int64_t num_chunks = std::clamp<int64_t>(num_prefills, 1, kMaxChunks);
  plan.tokens_left = std::min(plan.tokens_left, std::max(options_.prefill_chunk_tokens * num_chunks,
                                                         kPrefillTokensPerDecode * num_decodes));
}

void Scheduler::PlanPrefills(StepPlan& plan) {
  bool may_admit = true;
  while (plan.tokens_left > 0) {
    Sequence* const running = NextPrefill(plan);
    Sequence* const waiting = may_admit ? NextToStart(plan) : nullptr;
    if (running != nullptr &&
        (waiting == nullptr || !fair_.Before(*waiting->flow_, *running->flow_))) {
      plan.prefills.erase(std::find(plan.prefills.begin(), plan.prefills.end(), running));
      PlanRow(running, plan);
    } else if (waiting != nullptr) {
      // Those behind it do not overtake it for blocks.
      may_admit = TryAdmit(waiting, plan);
    } else {
      return;
    }
  }
}

Sequence* Scheduler::NextPrefill(const StepPlan& plan) const {
  const auto next = std::min_element(
      plan.prefills.begin(), plan.prefills.end(),
      [this](const Sequence* a, const Sequence* b) { return fair_.Before(*a->flow_, *b->flow_); });
  return next == plan.prefills.end() ? nullptr : *next;
}

void Scheduler::PlanRow(Sequence* sequence, StepPlan& plan) {
  if (!PlanContext(*sequence, plan) || plan.tokens_left == 0) {
    return;
  }
  const int64_t num_tokens = std::min(sequence->num_uncomputed_tokens(), plan.tokens_left);
  const int64_t num_slots =
      sequence->num_context_slots() + sequence->num_computed_tokens_ + num_tokens;
  const int64_t num_new_blocks =
      pool_->NumBlocksFor(num_slots) - static_cast<int64_t>(sequence->blocks_.size());
  if (!MakeRoom(sequence, num_new_blocks, plan)) {
    return;
  }
  pool_->Allocate(std::max<int64_t>(num_new_blocks, 0), sequence->blocks_, sequence->owner_);
  plan.rows.push_back({sequence, num_tokens});
  sequence->last_row_ = plan.step;
  plan.tokens_left -= num_tokens;
  Charge(*sequence, sequence->num_computed_tokens_, sequence->num_computed_tokens_ + num_tokens);
}

bool Scheduler::PlanContext(Sequence& sequence, StepPlan& plan) {
  const std::shared_ptr<Context>& context = sequence.context_;
  if (context == nullptr || context->computed()) {
    return true;
  }
  auto part = plan.FindContext(*context);
  if (part == plan.contexts.end()) {
    if (plan.tokens_left == 0) {
      return false;
    }
    const int64_t num_tokens =
        std::min(context->num_tokens() - context->num_computed_tokens(), plan.tokens_left);
    part = plan.contexts.insert(part, {context, num_tokens});
    plan.tokens_left -= num_tokens;
    ChargeContext(sequence, context->num_computed_tokens() + num_tokens);
  }
  return context->num_computed_tokens() + part->num_tokens == context->num_tokens();
}

void Scheduler::Charge(Sequence& sequence, int64_t begin, int64_t end) {
  begin = std::max(begin, sequence.charged_tokens_);
  if (begin < end) {
    fair_.Charge(sequence.flow_, options_.costs.Of(sequence, begin, end));
    sequence.charged_tokens_ = end;
  }
}

void Scheduler::ChargeContext(Sequence& sequence, int64_t end) {
  const int64_t charged = sequence.charged_context_tokens_;
  const int64_t begin = std::max(charged, sequence.context_->num_computed_tokens());
  if (begin < end) {
    fair_.Charge(sequence.flow_, options_.costs.prefill * static_cast<double>(end - begin));
  }
  sequence.charged_context_tokens_ = std::max(charged, end);
}

void Scheduler::Settle(const StepPlan& plan) {
  absl::flat_hash_map<const Sequence*, int64_t> served;
  for (const StepPlan::Row& row : plan.rows) {
    served.emplace(row.sequence, row.num_tokens);
  }
  const auto may_run = [&](const Sequence& s) {
    return !s.blocked() && !AwaitsLeader(s) && kv_shares_.LeftByLimit(s) > 0;
  };
  std::vector<FairShare::Flow*> unserved = waiting_.FlowsThatWait(may_run);
  absl::flat_hash_map<absl::string_view, bool> waits;
  for (const Sequence* sequence : waiting_.sequences()) {
    const absl::string_view tenant = sequence->tenant();
    waits[options_.fair ? tenant : ""] |= !sequence->blocked();
  }
  for (const std::unique_ptr<Sequence>& sequence : running_) {
    const auto row = served.find(sequence.get());
    const int64_t num_tokens = row == served.end() ? 0 : row->second;
    if (!sequence->blocked() && num_tokens < sequence->num_uncomputed_tokens()) {
      unserved.push_back(sequence->flow_);
    }
  }
  fair_.Settle(unserved);
  for (auto& [name, tenant] : tenants_) {
    const auto waiting = waits.find(name);
    tenant.estimate.Observe(std::exchange(tenant.num_started, 0),
                            waiting != waits.end() && waiting->second, plan.now);
  }
}

bool Scheduler::MakeRoom(Sequence* sequence, int64_t num_blocks, StepPlan& plan) {
  while (num_blocks > 0) {
    Sequence* victim = nullptr;
    if (preemption_.IsHeldByLimit(*sequence, num_blocks)) {
      victim = preemption_.FindOwnVictim(*sequence, num_blocks, plan.oldest);
    } else if (num_blocks > pool_->num_available()) {
      victim = preemption_.FindVictim(*sequence, num_blocks, plan.oldest);
    } else {
      return true;
    }
    if (victim == nullptr) {
      Preempt(sequence, plan);
      return false;
    }
    Preempt(victim, plan);
  }
  return true;
}

void Scheduler::Preempt(Sequence* sequence, StepPlan& plan) {
  plan.DropPlace(sequence);
  if (!sequence->blocked()) {
    plan.RemoveActive(*sequence);
  }
  const std::shared_ptr<Context> context = sequence->context_;
  ReleaseBlocks(sequence);
  if (context != nullptr && context->num_users() == 0) {  // then this step need not compute it
    plan.DropContext(*context);
  }
  sequence->num_computed_tokens_ = 0;
  sequence->EnterPhase(Sequence::Phase::kQueue, plan.now);
  waiting_.Add(RemoveRunning(sequence));
  ++num_preemptions_;
}

}  // namespace tenon
