// Context: the virtual tokens that stand in front of every sequence of one selection.
#ifndef TENON_SERVER_SCHEDULER_CONTEXT_H_
#define TENON_SERVER_SCHEDULER_CONTEXT_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "adapters/registry/adapter_selection.h"
#include "server/scheduler/block_pool.h"
#include "server/scheduler/prefix_index.h"

namespace tenon {

/// The virtual tokens of one selection within one tenant, and the KV blocks that hold them once for
/// all sequences that use them.
///
/// Virtual token i has position i and lies in slot first_slot() + i of the blocks: they are padded
/// on the left, so that the last one fills its block and a sequence's own tokens begin with a block
/// of their own. The slots before first_slot() hold nothing and must not be looked at.
///
/// Not thread-safe (engine thread); written by ContextIndex alone.
/// Invariant: each user holds one reference on each block, the context itself none.
class Context {
 public:
  /// `chain` is the root of the block keys; num_tokens > 0.
  Context(PrefixChain chain, std::shared_ptr<const AdapterSelection> selection, int64_t block_size);

  const std::shared_ptr<const AdapterSelection>& selection() const { return selection_; }
  int64_t num_tokens() const { return selection_->num_virtual_tokens(); }
  /// Slots of all its blocks: num_tokens rounded up to whole blocks.
  int64_t num_slots() const { return num_slots_; }
  int64_t first_slot() const { return num_slots_ - num_tokens(); }
  /// How many leading virtual tokens have their KV in `blocks`.
  int64_t num_computed_tokens() const { return num_computed_tokens_; }
  bool computed() const { return num_computed_tokens_ == num_tokens(); }
  /// Empty until they are allocated.
  const std::vector<BlockId>& blocks() const { return blocks_; }
  /// Sequences that hold the blocks.
  int64_t num_users() const { return num_users_; }

 private:
  friend class ContextIndex;

  PrefixChain chain_;
  std::shared_ptr<const AdapterSelection> selection_;
  int64_t num_slots_;
  int64_t num_computed_tokens_ = 0;
  int64_t num_users_ = 0;
  std::vector<BlockId> blocks_;
};

}  // namespace tenon

#endif  // TENON_SERVER_SCHEDULER_CONTEXT_H_
