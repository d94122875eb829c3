// Scheduler: the choice of a step's rows, and of who gives up blocks for them.
#include <algorithm>
#include <cassert>
#include <tuple>
#include <utility>

#include "server/scheduler/scheduler.h"

namespace tenon {

Batch Scheduler::Schedule(absl::Time now) {
  Plan plan{.step = ++num_planned_,
            .now = now,
            .tokens_left = options_.max_batch_tokens,
            .rows = {},
            .contexts = {},
            .prefills = {},
            .oldest = nullptr,
            .num_active = {},
            .total_active = 0};
  std::vector<Sequence*> active = ActiveSequences();
  plan.oldest = active.empty() ? nullptr : active.front();
  for (const Sequence* sequence : active) {
    ++plan.num_active[sequence->owner_];
    ++plan.total_active;
  }
  PlaceRunning(std::move(active), plan);
  BoundPrefills(plan);
  PlanPrefills(plan);
  Settle(plan);
  ChargeWaiting(now);
  return BuildBatch(std::move(plan));
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

void Scheduler::PlaceRunning(std::vector<Sequence*> active, Plan& plan) {
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
    if (IsDecode(*sequence) || NumPlacedPrefillTokens(plan) < plan.tokens_left) {
      Place(sequence, plan);
    }
  }
}

bool Scheduler::IsDecode(const Sequence& sequence) {
  return (sequence.context_ == nullptr || sequence.context_->computed()) &&
         static_cast<int64_t>(sequence.tokens_.size()) - sequence.num_computed_tokens_ == 1;
}

int64_t Scheduler::NumPlacedPrefillTokens(const Plan& plan) {
  int64_t count = 0;
  for (const Sequence* sequence : plan.prefills) {
    count += static_cast<int64_t>(sequence->tokens_.size()) - sequence->num_computed_tokens_;
  }
  return count;
}

void Scheduler::Place(Sequence* sequence, Plan& plan) {
  if (!sequence->running_) {
    return;  // preempted meanwhile
  }
  if (IsDecode(*sequence)) {
    PlanRow(sequence, plan);
  } else {
    plan.prefills.push_back(sequence);
  }
}

void Scheduler::BoundPrefills(Plan& plan) const {
  constexpr int64_t kPrefillTokensPerDecode = 2, kMaxChunks = 8;
  const auto num_decodes = static_cast<int64_t>(plan.rows.size());
  if (options_.prefill_chunk_tokens == 0 || num_decodes == 0) {
    return;
  }
  const int64_t num_prefills = static_cast<int64_t>(plan.prefills.size()) + waiting_.size();
  const int64_t num_chunks = std::clamp<int64_t>(num_prefills, 1, kMaxChunks);
  plan.tokens_left = std::min(plan.tokens_left,
                              std::max(options_.prefill_chunk_tokens * num_chunks,
                                       kPrefillTokensPerDecode * num_decodes));
}

void Scheduler::PlanPrefills(Plan& plan) {
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

Sequence* Scheduler::NextPrefill(const Plan& plan) const {
  const auto next = std::min_element(
      plan.prefills.begin(), plan.prefills.end(),
      [this](const Sequence* a, const Sequence* b) { return fair_.Before(*a->flow_, *b->flow_); });
  return next == plan.prefills.end() ? nullptr : *next;
}

Sequence* Scheduler::NextToStart(const Plan& plan) const {
  absl::flat_hash_map<BlockOwner, TenantRoom> rooms;
  return waiting_.Next([&](const Sequence& sequence) {
    if (sequence.blocked() || AwaitsLeader(sequence)) {
      return false;
    }
    const auto [room, is_new] = rooms.try_emplace(sequence.owner_);
    if (is_new) {
      room->second = RoomOf(sequence, plan);
    }
    return room->second.has_row &&
           (room->second.is_idle || NumBlocksFor(sequence.num_virtual_tokens()) +
                                            NumBlocksFor(static_cast<int64_t>(
                                                sequence.tokens_.size())) <=
                                        room->second.num_blocks);
  });
}

Scheduler::TenantRoom Scheduler::RoomOf(const Sequence& sequence, const Plan& plan) const {
  TenantRoom room;
  room.has_row =
      plan.total_active < options_.max_sequences || FindDonor(sequence, plan) != nullptr;
  room.num_blocks = kv_shares_.LeftByLimit(sequence);
  for (const std::unique_ptr<Sequence>& other : running_) {
    if (other->owner_ == sequence.owner_ && other->blocked()) {
      room.num_blocks += static_cast<int64_t>(other->blocks_.size());  // it would give them up
    } else if (other->owner_ == sequence.owner_) {
      room.is_idle = false;
    }
  }
  room.is_idle = room.is_idle || !options_.fair;
  return room;
}

Sequence* Scheduler::FindDonor(const Sequence& sequence, const Plan& plan) const {
  if (!options_.fair) {
    return nullptr;
  }
  absl::flat_hash_map<BlockOwner, int64_t> num_places;
  const std::vector<Sequence*> placed = plan.placed();
  for (const Sequence* other : placed) {
    ++num_places[other->owner_];
  }
  const int64_t num_mine = num_places[sequence.owner_];
  const auto mine = plan.num_active.find(sequence.owner_);
  if (mine != plan.num_active.end() && mine->second > num_mine) {
    return nullptr;  // it runs others, which sit out and come first
  }
  const double my_load = static_cast<double>(num_mine + 1) / fair_.weight(*sequence.flow_);
  Sequence* donor = nullptr;
  double highest = my_load;
  for (Sequence* other : placed) {
    const double load =
        static_cast<double>(num_places[other->owner_] - 1) / fair_.weight(*other->flow_);
    if (other == plan.oldest || other->owner_ == sequence.owner_ || load < highest) {
      continue;
    }
    if (donor == nullptr || load > highest || SitsOutFirst(*other, *donor)) {
      donor = other;
      highest = load;
    }
  }
  return donor;
}

bool Scheduler::SitsOutFirst(const Sequence& a, const Sequence& b) const {
  return a.flow_ == b.flow_ ? a.ticket_ > b.ticket_ : fair_.Before(*b.flow_, *a.flow_);
}

bool Scheduler::TryAdmit(Sequence* sequence, Plan& plan) {
  const int64_t num_tokens = static_cast<int64_t>(sequence->tokens_.size());
  int64_t num_own = NumBlocksFor(num_tokens);
  if (sequence->num_virtual_tokens() > 0) {
    sequence->context_ =
        context_index_.Join(sequence->tenant(), sequence->selection(), sequence->blocks_);
    num_own += context_index_.NumMissing(*sequence->context_);
  }
  std::vector<BlockId> cached;  // of its own; those of the context may still have to come first
  if (MayUsePrefixCache(*sequence)) {
    const int64_t max_blocks =
        (num_tokens - 1) / pool_->block_size();  // the last token is computed
    prefix_index_.Acquire(sequence->chain_, sequence->tokens_, max_blocks, cached);
    num_own -= static_cast<int64_t>(cached.size());
  }
  const int64_t num_needed = num_own + NumPromisedBlocks(*sequence, num_own, plan);
  const bool has_room =
      num_needed <= pool_->num_available() ||  // the second takes a while
      num_needed <= pool_->num_available() + NumReclaimableBlocks(*sequence, num_own, plan);
  if (!has_room) {
    sequence->blocks_.insert(sequence->blocks_.end(), cached.begin(), cached.end());
    ReleaseBlocks(sequence);
    return false;
  }
  if (plan.num_places() >= options_.max_sequences) {
    DropPlace(FindDonor(*sequence, plan), plan);  // there is one: NextToStart saw to it
  }
  return Start(sequence, cached, plan);
}

bool Scheduler::Start(Sequence* sequence, std::span<const BlockId> cached, Plan& plan) {
  const auto place = std::find_if(running_.begin(), running_.end(), [&](const auto& other) {
    return other->ticket() > sequence->ticket();
  });
  running_.insert(place, waiting_.Remove(*sequence));
  sequence->running_ = true;
  ++plan.num_active[sequence->owner_];
  ++plan.total_active;
  sequence->num_computed_tokens_ = static_cast<int64_t>(cached.size()) * pool_->block_size();
  sequence->EnterPhase(
      sequence->num_generated_tokens() == 0 ? Sequence::Phase::kPrefill : Sequence::Phase::kDecode,
      plan.now);
  if (Context* context = sequence->context_.get(); context != nullptr) {
    if (!MakeRoom(sequence, context_index_.NumMissing(*context), plan)) {
      for (const BlockId block : cached) {
        pool_->Release(block);
      }
      return false;
    }
    context_index_.Complete(*context, sequence->blocks_, sequence->owner_);
  }
  ++TenantOf(sequence->tenant()).num_started;
  if (!std::exchange(sequence->admitted_, true)) {
    sequence->num_cached_tokens_ = sequence->num_computed_tokens_;
  }
  sequence->blocks_.insert(sequence->blocks_.end(), cached.begin(), cached.end());
  PlanRow(sequence, plan);
  return sequence->running_;
}

void Scheduler::PlanRow(Sequence* sequence, Plan& plan) {
  if (!PlanContext(*sequence, plan) || plan.tokens_left == 0) {
    return;
  }
  const int64_t num_uncomputed =
      static_cast<int64_t>(sequence->tokens_.size()) - sequence->num_computed_tokens_;
  const int64_t num_tokens = std::min(num_uncomputed, plan.tokens_left);
  const int64_t num_new_blocks =
      NumBlocksFor(*sequence, sequence->num_computed_tokens_ + num_tokens) -
      static_cast<int64_t>(sequence->blocks_.size());
  if (!MakeRoom(sequence, num_new_blocks, plan)) {
    return;
  }
  pool_->Allocate(std::max<int64_t>(num_new_blocks, 0), sequence->blocks_, sequence->owner_);
  plan.rows.push_back({sequence, num_tokens});
  sequence->last_row_ = plan.step;
  plan.tokens_left -= num_tokens;
  Charge(*sequence, sequence->num_computed_tokens_, sequence->num_computed_tokens_ + num_tokens);
}

bool Scheduler::PlanContext(Sequence& sequence, Plan& plan) {
  const std::shared_ptr<Context>& context = sequence.context_;
  if (context == nullptr || context->computed()) {
    return true;
  }
  auto part = std::find_if(plan.contexts.begin(), plan.contexts.end(),
                           [&](const Plan::ContextPart& p) { return p.context == context; });
  if (part == plan.contexts.end()) {
    if (plan.tokens_left == 0) {
      return false;
    }
    const int64_t num_tokens =
        std::min(context->num_tokens() - context->num_computed_tokens(), plan.tokens_left);
    part = plan.contexts.insert(part, {context, num_tokens});
    plan.tokens_left -= num_tokens;
    const int64_t end = context->num_computed_tokens() + num_tokens;
    const int64_t charged = std::exchange(
        sequence.charged_context_tokens_, std::max(sequence.charged_context_tokens_, end));
    fair_.Charge(sequence.flow_,
                 options_.costs.prefill *
                     static_cast<double>(std::max<int64_t>(
                         end - std::max(charged, context->num_computed_tokens()), 0)));
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

void Scheduler::Settle(const Plan& plan) {
  absl::flat_hash_map<const Sequence*, int64_t> served;
  for (const Plan::Row& row : plan.rows) {
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
    if (!sequence->blocked() && sequence->num_computed_tokens_ + num_tokens <
                                    static_cast<int64_t>(sequence->tokens_.size())) {
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

bool Scheduler::MakeRoom(Sequence* sequence, int64_t num_blocks, Plan& plan) {
  while (num_blocks > 0) {
    Sequence* victim = nullptr;
    if (options_.fair && num_blocks > kv_shares_.LeftByLimit(*sequence) &&
        RunsWithOthers(*sequence)) {
      victim = FindOwnVictim(*sequence, num_blocks, plan);
    } else if (num_blocks > pool_->num_available()) {
      victim = FindVictim(*sequence, num_blocks, plan);
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

Sequence* Scheduler::FindVictim(const Sequence& sequence, int64_t num_blocks,
                                const Plan& plan) const {
  Sequence* victim = nullptr;
  for (auto it = running_.rbegin(); it != running_.rend(); ++it) {
    Sequence* const other = it->get();
    if (other->blocked()) {
      return other;
    }
    if (MayTakeFrom(sequence, *other, num_blocks, plan) &&
        (victim == nullptr || LosesFirst(*other, *victim))) {
      victim = other;
    }
  }
  return victim;
}

bool Scheduler::RunsWithOthers(const Sequence& sequence) const {
  return std::any_of(running_.begin(), running_.end(), [&](const auto& other) {
    return other.get() != &sequence && other->owner_ == sequence.owner_;
  });
}

Sequence* Scheduler::FindOwnVictim(const Sequence& sequence, int64_t num_blocks,
                                   const Plan& plan) const {
  Sequence* victim = nullptr;
  for (const std::unique_ptr<Sequence>& other : running_) {
    if (other->owner_ != sequence.owner_) {
      continue;
    }
    if (other->blocked()) {
      return other.get();
    }
    if (MayTakeFrom(sequence, *other, num_blocks, plan) &&
        (victim == nullptr || LosesFirst(*other, *victim))) {
      victim = other.get();
    }
  }
  return victim;
}

bool Scheduler::MayTakeFrom(const Sequence& sequence, const Sequence& other, int64_t num_blocks,
                            const Plan& plan) const {
  if (&other == &sequence || &other == plan.oldest) {
    return false;
  }
  if (&sequence == plan.oldest) {
    return true;
  }
  if (!options_.fair || other.owner_ == sequence.owner_) {
    return LosesFirst(other, sequence);
  }
  return OutranksForBlocks(sequence, other, num_blocks, plan) ||
         (other.ticket_ > sequence.ticket_ && kv_shares_.Excess(other) > 0 &&
          kv_shares_.Load(other) > kv_shares_.Load(sequence));
}

bool Scheduler::OutranksForBlocks(const Sequence& sequence, const Sequence& other,
                                  int64_t num_blocks, const Plan& plan) const {
  return options_.fair && other.owner_ != sequence.owner_ && &other != plan.oldest &&
         kv_shares_.Excess(other) > 0 && kv_shares_.IsWithin(sequence, num_blocks);
}

bool Scheduler::LosesFirst(const Sequence& a, const Sequence& b) const {
  if (!options_.fair) {
    return a.ticket_ > b.ticket_;
  }
  if (a.owner_ != b.owner_) {
    return kv_shares_.Load(a) > kv_shares_.Load(b);
  }
  return a.priority() != b.priority() ? a.priority() < b.priority() : a.ticket_ > b.ticket_;
}

void Scheduler::Preempt(Sequence* sequence, Plan& plan) {
  DropPlace(sequence, plan);
  if (!sequence->blocked()) {
    --plan.num_active[sequence->owner_];
    --plan.total_active;
  }
  const std::shared_ptr<Context> context = sequence->context_;
  ReleaseBlocks(sequence);
  if (context != nullptr && context->num_users() == 0) {  // then this step need not compute it
    const auto part =
        std::find_if(plan.contexts.begin(), plan.contexts.end(),
                     [&](const Plan::ContextPart& p) { return p.context == context; });
    if (part != plan.contexts.end()) {
      plan.tokens_left += part->num_tokens;
      plan.contexts.erase(part);
    }
  }
  sequence->num_computed_tokens_ = 0;
  sequence->EnterPhase(Sequence::Phase::kQueue, plan.now);
  waiting_.Add(RemoveRunning(sequence));
  ++num_preemptions_;
}

void Scheduler::DropPlace(const Sequence* sequence, Plan& plan) {
  const auto place = std::find(plan.prefills.begin(), plan.prefills.end(), sequence);
  if (place != plan.prefills.end()) {
    plan.prefills.erase(place);
  }
  const auto row = std::find_if(plan.rows.begin(), plan.rows.end(),
                                [&](const Plan::Row& r) { return r.sequence == sequence; });
  if (row != plan.rows.end()) {
    plan.tokens_left += row->num_tokens;
    plan.rows.erase(row);
  }
}

bool Scheduler::MayUsePrefixCache(const Sequence& sequence) const {
  const bool wants_prompt_logprobs =
      sequence.sampling().prompt_logprobs.has_value() && sequence.num_generated_tokens() == 0;
  return options_.prefix_cache && !wants_prompt_logprobs;
}

bool Scheduler::AwaitsLeader(const Sequence& sequence) const {
  if (!sequence.leader().has_value() || !MayUsePrefixCache(sequence) ||
      sequence.num_prompt_tokens() <= pool_->block_size()) {
    return false;
  }
  const Sequence* leader = Find(*sequence.leader());
  return leader != nullptr && !leader->blocked() && leader->num_generated_tokens() == 0;
}

int64_t Scheduler::NumPromisedBlocks(const Sequence& sequence, int64_t num_blocks,
                                     const Plan& plan) const {
  int64_t promised = 0;
  for (const std::unique_ptr<Sequence>& other : running_) {
    if (!other->blocked() && !OutranksForBlocks(sequence, *other, num_blocks, plan)) {
      promised += NumBlocksFor(*other, static_cast<int64_t>(other->tokens_.size())) -
                  static_cast<int64_t>(other->blocks_.size());
    }
  }
  return promised;
}

int64_t Scheduler::NumReclaimableBlocks(const Sequence& sequence, int64_t num_blocks,
                                        const Plan& plan) const {
  absl::flat_hash_map<BlockId, int32_t> held;
  int64_t reclaimable = 0;
  absl::flat_hash_map<BlockOwner, int64_t> excess;  // what is left of it
  for (const std::unique_ptr<Sequence>& other : running_) {
    if (!other->blocked() && !OutranksForBlocks(sequence, *other, num_blocks, plan)) {
      continue;
    }
    int64_t count = 0;
    for (const BlockId block : other->blocks_) {
      count += ++held[block] == pool_->ref_count(block) ? 1 : 0;
    }
    if (!other->blocked()) {
      int64_t& left = excess.try_emplace(other->owner_, kv_shares_.Excess(*other)).first->second;
      count = std::min(count, left);
      left -= count;
    }
    reclaimable += count;
  }
  return reclaimable;
}

Batch Scheduler::BuildBatch(Plan plan) const {
  std::sort(plan.rows.begin(), plan.rows.end(), [](const Plan::Row& a, const Plan::Row& b) {
    const auto rank = [](const Sequence& sequence) {
      return std::tuple<bool, const std::string&, SequenceId>(
          sequence.merged(), sequence.selection()->key(), sequence.id());
    };
    return rank(*a.sequence) < rank(*b.sequence);
  });
  Batch batch;
  for (const auto& [sequence, num_tokens] : plan.rows) {
    const int64_t row = static_cast<int64_t>(batch.rows.size());
    const int64_t end = sequence->num_computed_tokens_ + num_tokens;
    batch.rows.push_back({.sequence = sequence,
                          .first_token = sequence->num_computed_tokens_,
                          .num_tokens = num_tokens,
                          .samples = end == static_cast<int64_t>(sequence->tokens_.size())});
    if (batch.segments.empty() || batch.segments.back().merged != sequence->merged() ||
        batch.segments.back().selection->key() != sequence->selection()->key()) {
      batch.segments.push_back({.row_begin = row,
                                .row_end = row,
                                .token_begin = batch.num_tokens,
                                .token_end = batch.num_tokens,
                                .selection = sequence->selection(),
                                .merged = sequence->merged()});
    }
    batch.num_tokens += num_tokens;
    batch.segments.back().row_end = row + 1;
    batch.segments.back().token_end = batch.num_tokens;
  }
  AddContexts(plan, batch);
  batch.recycled_blocks = pool_->TakeRecycled();
  return batch;
}

void Scheduler::AddContexts(const Plan& plan, Batch& batch) const {
  for (const Plan::ContextPart& part : plan.contexts) {
    const auto user = std::find_if(running_.begin(), running_.end(), [&](const auto& sequence) {
      return sequence->context_ == part.context;
    });
    batch.contexts.push_back({.context = part.context,
                              .user = user->get(),
                              .first_token = part.context->num_computed_tokens(),
                              .num_tokens = part.num_tokens});
    batch.num_context_tokens += part.num_tokens;
  }
}

}  // namespace tenon
