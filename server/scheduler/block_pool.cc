#include "server/scheduler/block_pool.h"

#include <algorithm>
#include <cassert>
#include <utility>

namespace tenon {

BlockPool::BlockPool(int64_t num_blocks, int64_t block_size)
    : block_size_(block_size),
      ref_counts_(num_blocks, 0),
      owners_(num_blocks, 0),
      lru_position_(num_blocks),
      is_kept_(num_blocks, false),
      keys_(num_blocks) {
  assert(num_blocks > 0 && block_size > 0);
  free_.reserve(num_blocks);
  for (int64_t block = num_blocks; block-- > 0;) {
    free_.push_back(static_cast<BlockId>(block));  // so that id 0 is handed out first
  }
}

BlockPool::Account& BlockPool::AccountOf(BlockOwner owner) {
  assert(owner >= 0);
  if (static_cast<size_t>(owner) >= accounts_.size()) {
    accounts_.resize(static_cast<size_t>(owner) + 1);
  }
  return accounts_[static_cast<size_t>(owner)];
}

bool BlockPool::Allocate(int64_t count, std::vector<BlockId>& blocks, BlockOwner owner) {
  if (count > num_available()) {
    return false;
  }
  for (int64_t i = 0; i < count; ++i) {
    const BlockId block = TakeAvailable();
    owners_[block] = owner;
    ++AccountOf(owner).num_used;
    blocks.push_back(block);
  }
  return true;
}

void BlockPool::SetWeight(BlockOwner owner, double weight) {
  assert(weight > 0);
  AccountOf(owner).weight = weight;
}

std::vector<BlockId> BlockPool::TakeRecycled() { return std::exchange(recycled_, {}); }

int64_t BlockPool::num_used(BlockOwner owner) const {
  return static_cast<size_t>(owner) < accounts_.size() ? accounts_[owner].num_used : 0;
}

int64_t BlockPool::num_cached(BlockOwner owner) const {
  return static_cast<size_t>(owner) < accounts_.size()
             ? static_cast<int64_t>(accounts_[owner].lru.size() + accounts_[owner].kept.size())
             : 0;
}

BlockId BlockPool::TakeAvailable() {
  BlockId block;
  if (!free_.empty()) {
    block = free_.back();
    free_.pop_back();
  } else {
    block = EvictOne();
  }
  ref_counts_[block] = 1;
  return block;
}

BlockId BlockPool::EvictOne() {
  const bool all_kept = std::all_of(accounts_.begin(), accounts_.end(),
                                    [](const Account& a) { return a.lru.empty(); });
  const auto list = all_kept ? &Account::kept : &Account::lru;
  const auto load = [list](const Account& a) {
    const int64_t num_cached = static_cast<int64_t>(a.lru.size() + a.kept.size());
    return (a.*list).empty() ? -1.0 : static_cast<double>(a.num_used + num_cached) / a.weight;
  };
  const auto fullest =
      std::max_element(accounts_.begin(), accounts_.end(),
                       [&](const Account& a, const Account& b) { return load(a) < load(b); });
  const BlockId block = ((*fullest).*list).front();
  ((*fullest).*list).pop_front();
  --num_cached_;
  by_key_.erase(keys_[block]);
  keys_[block].clear();
  is_kept_[block] = false;
  recycled_.push_back(block);
  return block;
}

void BlockPool::Share(BlockId block) {
  assert(ref_counts_[block] > 0);
  ++ref_counts_[block];
}

void BlockPool::Release(BlockId block) {
  assert(ref_counts_[block] > 0);
  if (--ref_counts_[block] > 0) {
    return;
  }
  --AccountOf(owners_[block]).num_used;
  if (is_published(block)) {
    lru_position_[block] = ListOf(block).insert(ListOf(block).end(), block);
    ++num_cached_;
  } else {
    free_.push_back(block);
    recycled_.push_back(block);
  }
}

void BlockPool::Publish(BlockId block, const BlockKey& key) {
  assert(ref_counts_[block] > 0 && !key.empty());
  if (!is_published(block) && by_key_.try_emplace(key, block).second) {
    keys_[block] = key;
  }
}

std::optional<BlockId> BlockPool::Acquire(const BlockKey& key) {
  const auto found = by_key_.find(key);
  if (found == by_key_.end()) {
    return std::nullopt;
  }
  const BlockId block = found->second;
  if (ref_counts_[block]++ == 0) {
    ListOf(block).erase(lru_position_[block]);
    ++AccountOf(owners_[block]).num_used;
    --num_cached_;
  }
  return block;
}

void BlockPool::SetKept(const BlockKey& key, bool kept) {
  const auto found = by_key_.find(key);
  if (found == by_key_.end() || is_kept_[found->second] == kept) {
    return;
  }
  const BlockId block = found->second;
  const bool is_cached = ref_counts_[block] == 0;
  if (is_cached) {
    ListOf(block).erase(lru_position_[block]);
  }
  is_kept_[block] = kept;
  if (is_cached) {
    lru_position_[block] = ListOf(block).insert(ListOf(block).end(), block);
  }
}

}  // namespace tenon
