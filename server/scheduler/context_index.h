// ContextIndex: the contexts in use, and the blocks of those that were.
#ifndef TENON_SERVER_SCHEDULER_CONTEXT_INDEX_H_
#define TENON_SERVER_SCHEDULER_CONTEXT_INDEX_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "server/scheduler/block_pool.h"
#include "server/scheduler/context.h"
#include "server/scheduler/prefix_index.h"

namespace tenon {

/// One Context per (tenant, selection) as long as somebody uses it. The blocks that it has computed
/// are published in the pool under keys of their own, by content as those of a prefix: when the
/// last user is gone they stay cached until the pool needs them, least recently used first, and
/// the next user finds what is left.
///
/// Not thread-safe (engine thread).
class ContextIndex {
 public:
  /// Both are borrowed and outlive the index.
  ContextIndex(PrefixIndex* prefix_index, BlockPool* pool);

  /// Adds a user. Appends to `blocks` those of the context, with a reference on each: all of them
  /// when it is in use, else the leading ones that are cached, and Complete is to follow.
  std::shared_ptr<Context> Join(absl::string_view tenant,
                                const std::shared_ptr<const AdapterSelection>& selection,
                                std::vector<BlockId>& blocks);

  /// Blocks that Complete will take from the pool.
  int64_t NumMissing(const Context& context) const;

  /// Allocates what is missing. `blocks` are those that Join gave to the first user, who gets the
  /// references. They are `owner`'s. False, with nothing changed, when the pool does not have them.
  bool Complete(Context& context, std::vector<BlockId>& blocks, BlockOwner owner);

  /// Takes a user away, who releases its references itself. Forgets the context with the last one.
  void Leave(const std::shared_ptr<Context>& context);

  /// Notes that virtual tokens up to `end` have been computed. Passes over a context that was
  /// forgotten meanwhile.
  void Commit(const Context& context, int64_t end);

 private:
  PrefixChain Chain(absl::string_view tenant, const AdapterSelection& selection) const;

  PrefixIndex* const prefix_index_;
  BlockPool* const pool_;
  absl::flat_hash_map<BlockKey, std::shared_ptr<Context>> in_use_;  // by the root of the chain
};

}  // namespace tenon

#endif  // TENON_SERVER_SCHEDULER_CONTEXT_INDEX_H_
