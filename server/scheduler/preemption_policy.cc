#include "server/scheduler/preemption_policy.h"

#include <algorithm>
#include <ranges>

#include "absl/container/flat_hash_map.h"

namespace tenon {

template <typename Candidates>
Sequence* PreemptionPolicy::Choose(Candidates candidates, const Sequence& sequence,
                                   int64_t num_blocks, const Sequence* oldest) const {
  Sequence* victim = nullptr;
  for (const std::unique_ptr<Sequence>& other : candidates) {
    if (other->blocked()) {
      return other.get();
    }
    if (MayTakeFrom(sequence, *other, num_blocks, oldest) &&
        (victim == nullptr || LosesFirst(*other, *victim))) {
      victim = other.get();
    }
  }
  return victim;
}

bool PreemptionPolicy::IsHeldByLimit(const Sequence& sequence, int64_t num_blocks) const {
  return fair_ && num_blocks > kv_shares_->LeftByLimit(sequence) &&
         std::any_of(running_->begin(), running_->end(), [&](const auto& other) {
           return other.get() != &sequence && other->owner() == sequence.owner();
         });
}

Sequence* PreemptionPolicy::FindVictim(const Sequence& sequence, int64_t num_blocks,
                                       const Sequence* oldest) const {
  return Choose(std::views::reverse(*running_), sequence, num_blocks, oldest);
}

Sequence* PreemptionPolicy::FindOwnVictim(const Sequence& sequence, int64_t num_blocks,
                                          const Sequence* oldest) const {
  const auto is_own = [&](const auto& other) { return other->owner() == sequence.owner(); };
  return Choose(std::views::filter(*running_, is_own), sequence, num_blocks, oldest);
}

bool PreemptionPolicy::MayTakeFrom(const Sequence& sequence, const Sequence& other,
                                   int64_t num_blocks, const Sequence* oldest) const {
  if (&other == &sequence || &other == oldest) {
    return false;
  }
  if (&sequence == oldest) {
    return true;
  }
  if (!fair_ || other.owner() == sequence.owner()) {
    return LosesFirst(other, sequence);
  }
  return Outranks(sequence, other, num_blocks, oldest) ||
         (other.ticket() > sequence.ticket() && kv_shares_->Excess(other) > 0 &&
          kv_shares_->Load(other) > kv_shares_->Load(sequence));
}

bool PreemptionPolicy::Outranks(const Sequence& sequence, const Sequence& other, int64_t num_blocks,
                                const Sequence* oldest) const {
  return fair_ && other.owner() != sequence.owner() && &other != oldest &&
         kv_shares_->Excess(other) > 0 && kv_shares_->IsWithin(sequence, num_blocks);
}

bool PreemptionPolicy::LosesFirst(const Sequence& a, const Sequence& b) const {
  if (!fair_) {
    return a.ticket() > b.ticket();
  }
  if (a.owner() != b.owner()) {
    return kv_shares_->Load(a) > kv_shares_->Load(b);
  }
  return a.priority() != b.priority() ? a.priority() < b.priority() : a.ticket() > b.ticket();
}

int64_t PreemptionPolicy::NumPromisedBlocks(const Sequence& sequence, int64_t num_blocks,
                                            const Sequence* oldest) const {
  int64_t promised = 0;
  for (const std::unique_ptr<Sequence>& other : *running_) {
    if (!other->blocked() && !Outranks(sequence, *other, num_blocks, oldest)) {
      promised += pool_->NumBlocksFor(other->num_context_slots() + other->num_tokens()) -
                  static_cast<int64_t>(other->blocks().size());
    }
  }
  return promised;
}

int64_t PreemptionPolicy::NumReclaimableBlocks(const Sequence& sequence, int64_t num_blocks,
                                               const Sequence* oldest) const {
  absl::flat_hash_map<BlockId, int32_t> held;
  int64_t reclaimable = 0;
  absl::flat_hash_map<BlockOwner, int64_t> excess;  // what is left of it
  for (const std::unique_ptr<Sequence>& other : *running_) {
    if (!other->blocked() && !Outranks(sequence, *other, num_blocks, oldest)) {
      continue;
    }
    int64_t count = 0;
    for (const BlockId block : other->blocks()) {
      count += ++held[block] == pool_->ref_count(block) ? 1 : 0;
    }
    if (!other->blocked()) {
      int64_t& left = excess.try_emplace(other->owner(), kv_shares_->Excess(*other)).first->second;
      count = std::min(count, left);
      left -= count;
    }
    reclaimable += count;
  }
  return reclaimable;
}

}  // namespace tenon
