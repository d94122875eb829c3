// PrefixIndex: finds the KV blocks of a prefix that some sequence has computed before.
#ifndef TENON_SERVER_SCHEDULER_PREFIX_INDEX_H_
#define TENON_SERVER_SCHEDULER_PREFIX_INDEX_H_

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "server/scheduler/block_pool.h"

namespace tenon {

/// The block keys of one token sequence, extended as far as somebody has asked for: key i covers
/// the first (i + 1) * block_size tokens. A value; valid as long as tokens are only appended.
struct PrefixChain {
  BlockKey root;
  std::vector<BlockKey> keys;
};

/// Names blocks by their content and finds them in a BlockPool.
///
/// A key is sha256 over the parent's key and the block's tokens, and the first parent is sha256
/// over everything else that the KV values depend on, each part with its length in front, so that
/// no two different inputs are written the same way. Two blocks therefore share a key only when
/// tenant, base model, adapters with their weights, and all tokens up to their end are equal.
///
/// Not thread-safe (engine thread).
class PrefixIndex {
 public:
  /// `salt` identifies the base model; `pool` is borrowed and outlives the index.
  PrefixIndex(std::string salt, BlockPool* pool);

  /// An empty chain for sequences of `tenant` under the selection with key `selection_key`.
  PrefixChain Begin(absl::string_view tenant, absl::string_view selection_key) const;

  /// Appends to `blocks` the longest run of leading blocks of `tokens` that the pool has, at most
  /// `max_blocks`, with a reference on each.
  void Acquire(PrefixChain& chain, std::span<const int32_t> tokens, int64_t max_blocks,
               std::vector<BlockId>& blocks);

  /// Makes blocks [first_block, end_block) findable; they hold the KV of all their tokens.
  void Publish(PrefixChain& chain, std::span<const int32_t> tokens, std::span<const BlockId> blocks,
               int64_t first_block, int64_t end_block);

 private:
  /// Extends the chain to `index` and returns that key.
  const BlockKey& KeyOf(PrefixChain& chain, std::span<const int32_t> tokens, int64_t index) const;

  const std::string salt_;
  BlockPool* const pool_;
};

}  // namespace tenon

#endif  // TENON_SERVER_SCHEDULER_PREFIX_INDEX_H_
