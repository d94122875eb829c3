#include "server/scheduler/block_pool.h"

#include <cassert>

namespace tenon {

BlockPool::BlockPool(int64_t num_blocks, int64_t block_size)
    : block_size_(block_size),
      ref_counts_(num_blocks, 0),
      lru_position_(num_blocks),
      keys_(num_blocks) {
  assert(num_blocks > 0 && block_size > 0);
  free_.reserve(num_blocks);
  for (int64_t block = num_blocks; block-- > 0;) {
    free_.push_back(static_cast<BlockId>(block));  // so that id 0 is handed out first
  }
}

bool BlockPool::Allocate(int64_t count, std::vector<BlockId>& blocks) {
  if (count > num_available()) {
    return false;
  }
  for (int64_t i = 0; i < count; ++i) {
    blocks.push_back(TakeAvailable());
  }
  return true;
}

BlockId BlockPool::TakeAvailable() {
  BlockId block;
  if (!free_.empty()) {
    block = free_.back();
    free_.pop_back();
  } else {
    block = lru_.front();
    lru_.pop_front();
    by_key_.erase(keys_[block]);
    keys_[block].clear();
  }
  ref_counts_[block] = 1;
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
  if (is_published(block)) {
    lru_position_[block] = lru_.insert(lru_.end(), block);
  } else {
    free_.push_back(block);
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
    lru_.erase(lru_position_[block]);
  }
  return block;
}

}  // namespace tenon
