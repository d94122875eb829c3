// Scheduler: which waiting sequence begins, and with what.
#include <algorithm>
#include <utility>

#include "server/scheduler/scheduler.h"

namespace tenon {

Sequence* Scheduler::NextToStart(const StepPlan& plan) const {
  absl::flat_hash_map<BlockOwner, TenantRoom> rooms;
  return waiting_.Next([&](const Sequence& sequence) {
    if (sequence.blocked() || AwaitsLeader(sequence)) {
      return false;
    }
    const auto [room, is_new] = rooms.try_emplace(sequence.owner_);
    if (is_new) {
      room->second = RoomOf(sequence, plan);
    }
    const int64_t num_blocks = pool_->NumBlocksFor(sequence.num_virtual_tokens()) +
                               pool_->NumBlocksFor(sequence.num_tokens());
    return room->second.has_row && (room->second.is_idle || num_blocks <= room->second.num_blocks);
  });
}

Scheduler::TenantRoom Scheduler::RoomOf(const Sequence& sequence, const StepPlan& plan) const {
  TenantRoom room;
  room.has_row = plan.total_active < options_.max_sequences || FindDonor(sequence, plan) != nullptr;
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

Sequence* Scheduler::FindDonor(const Sequence& sequence, const StepPlan& plan) const {
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

bool Scheduler::TryAdmit(Sequence* sequence, StepPlan& plan) {
  const int64_t num_tokens = sequence->num_tokens();
  int64_t num_own = pool_->NumBlocksFor(num_tokens);
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
  const int64_t num_needed =
      num_own + preemption_.NumPromisedBlocks(*sequence, num_own, plan.oldest);
  const bool has_room = num_needed <= pool_->num_available() ||  // the second takes a while
                        num_needed <= pool_->num_available() + preemption_.NumReclaimableBlocks(
                                                                   *sequence, num_own, plan.oldest);
  if (!has_room) {
    sequence->blocks_.insert(sequence->blocks_.end(), cached.begin(), cached.end());
    ReleaseBlocks(sequence);
    return false;
  }
  if (plan.num_places() >= options_.max_sequences) {
    plan.DropPlace(FindDonor(*sequence, plan));  // there is one: NextToStart saw to it
  }
  return Start(sequence, cached, plan);
}

bool Scheduler::Start(Sequence* sequence, std::span<const BlockId> cached, StepPlan& plan) {
  const auto place = std::find_if(running_.begin(), running_.end(), [&](const auto& other) {
    return other->ticket() > sequence->ticket();
  });
  running_.insert(place, waiting_.Remove(*sequence));
  sequence->running_ = true;
  plan.AddActive(*sequence);
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

bool Scheduler::AwaitsLeader(const Sequence& sequence) const {
  if (!sequence.leader().has_value() || !MayUsePrefixCache(sequence) ||
      sequence.num_prompt_tokens() <= pool_->block_size()) {
    return false;
  }
  const Sequence* leader = Find(*sequence.leader());
  return leader != nullptr && !leader->blocked() && leader->num_generated_tokens() == 0;
}

bool Scheduler::MayUsePrefixCache(const Sequence& sequence) const {
  const bool wants_prompt_logprobs =
      sequence.sampling().prompt_logprobs.has_value() && sequence.num_generated_tokens() == 0;
  return options_.prefix_cache && !wants_prompt_logprobs;
}

}  // namespace tenon
