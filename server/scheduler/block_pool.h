// BlockPool: ids of KV blocks, with reference counts, and which finished blocks can be found again.
#ifndef TENON_SERVER_SCHEDULER_BLOCK_POOL_H_
#define TENON_SERVER_SCHEDULER_BLOCK_POOL_H_

#include <cstdint>
#include <list>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"

namespace tenon {

using BlockId = int32_t;

/// Whose a block is: a small number that the pool's user gives to each tenant.
using BlockOwner = int32_t;

/// Key of a full block: a digest over the chain (root, all tokens up to and including this block).
/// Never empty.
using BlockKey = std::string;

/// Hands out block ids and counts who uses them. A block that was published under a key and is used
/// by nobody stays findable until its id is needed for something else: that of the owner who has
/// most blocks for his weight, used ones counted, his least recently used first. A flood of one
/// owner's blocks so evicts that owner's own before those of anybody who has less. Blocks that are
/// kept go only when no others are left, by the same rule.
///
/// Not thread-safe (engine thread). Knows no tensors: KvCache holds the memory that the ids name.
/// Invariants: every id is free, cached (count 0, findable) or used (count > 0); the three sum to
/// num_blocks.
class BlockPool {
 public:
  /// num_blocks > 0, block_size tokens per block > 0.
  BlockPool(int64_t num_blocks, int64_t block_size);

  /// Appends `count` ids with count 1 to `blocks`, evicting cached ones as needed; all or nothing.
  /// They are `owner`'s (>= 0) until they are handed out again.
  bool Allocate(int64_t count, std::vector<BlockId>& blocks, BlockOwner owner = 0);
  /// The weight (> 0) by which the blocks of owners are compared; 1 until it is set.
  void SetWeight(BlockOwner owner, double weight);

  /// Takes the ids whose content nobody may look at any more: freed unpublished, or evicted, since
  /// the last call. Some of them may be in use again.
  std::vector<BlockId> TakeRecycled();

  /// Adds a reference.
  void Share(BlockId block);
  /// Drops a reference; at zero the block is cached when it was published, else free.
  void Release(BlockId block);

  /// Makes a full, computed, used block findable. When the key is taken already the earlier block
  /// stays, and this one is freed like any other.
  void Publish(BlockId block, const BlockKey& key);
  /// The block of that key with one more reference, if it is still there.
  std::optional<BlockId> Acquire(const BlockKey& key);
  /// Keeps the block of that key before all that are not kept, or no longer; until its id is handed
  /// out again. No effect when there is none.
  void SetKept(const BlockKey& key, bool kept);

  int64_t num_blocks() const { return static_cast<int64_t>(ref_counts_.size()); }
  int64_t block_size() const { return block_size_; }
  /// Blocks that so many slots take, the last one perhaps not full.
  int64_t NumBlocksFor(int64_t num_slots) const {
    return (num_slots + block_size_ - 1) / block_size_;
  }
  /// Blocks that Allocate can hand out: free and cached.
  int64_t num_available() const { return static_cast<int64_t>(free_.size()) + num_cached_; }
  int64_t num_used() const { return num_blocks() - num_available(); }
  int64_t num_cached() const { return num_cached_; }
  /// The same of one owner.
  int64_t num_used(BlockOwner owner) const;
  int64_t num_cached(BlockOwner owner) const;
  int32_t ref_count(BlockId block) const { return ref_counts_[block]; }
  /// Whether the block can be found by a key; such a block is never written again.
  bool is_published(BlockId block) const { return !keys_[block].empty(); }

 private:
  struct Account {
    double weight = 1.0;
    int64_t num_used = 0;
    // Cached blocks, least recently used first: those that are not kept, and those that are.
    std::list<BlockId> lru, kept;
  };

  /// Removes the id from the free or the cached ones and gives it one reference.
  BlockId TakeAvailable();
  BlockId EvictOne();
  Account& AccountOf(BlockOwner owner);
  /// Where that block is, or would be, when it is cached.
  std::list<BlockId>& ListOf(BlockId block) {
    Account& account = AccountOf(owners_[block]);
    return is_kept_[block] ? account.kept : account.lru;
  }

  int64_t block_size_;
  std::vector<int32_t> ref_counts_;
  std::vector<BlockId> free_;
  std::vector<BlockId> recycled_;
  std::vector<Account> accounts_;                           // by owner
  std::vector<BlockOwner> owners_;                          // by id; of no meaning for free blocks
  int64_t num_cached_ = 0;                                  // of all owners
  std::vector<std::list<BlockId>::iterator> lru_position_;  // by id; valid for cached blocks only
  std::vector<bool> is_kept_;                               // by id; false when not published
  std::vector<BlockKey> keys_;                              // "" when not published
  absl::flat_hash_map<BlockKey, BlockId> by_key_;
};

}  // namespace tenon

#endif  // TENON_SERVER_SCHEDULER_BLOCK_POOL_H_
