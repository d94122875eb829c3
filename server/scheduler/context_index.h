// ContextIndex: the contexts in use, and the blocks of those that were.
#ifndef TENON_SERVER_SCHEDULER_CONTEXT_INDEX_H_
#define TENON_SERVER_SCHEDULER_CONTEXT_INDEX_H_

#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "server/scheduler/block_pool.h"
#include "server/scheduler/context.h"
#include "server/scheduler/prefix_index.h"

namespace tenon {

/// One Context per (tenant, selection) as long as somebody uses it. The blocks that it has computed
/// are published in the pool under keys of their own, by content as those of a prefix: when the
/// last user is gone they stay cached, and the next user finds what is left.
///
/// A context that was computed whole is kept: the pool evicts every prefix before its blocks, so
/// that it stays for as long as its adapters are on the device (LetGo says when they are not). All
/// that is kept fits into a quarter of the pool; the least recently used goes first.
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

  /// Keeps no longer the contexts with an adapter of which `is_resident` (its digest) is false.
  /// What they have computed stays cached like a prefix.
  void LetGo(const std::function<bool(const std::string& digest)>& is_resident);

  /// Notes that virtual tokens up to `end` have been computed. Passes over a context that was
  /// forgotten meanwhile.
  void Commit(const Context& context, int64_t end);

 private:
  /// A context whose blocks the pool keeps.
  struct Kept {
    BlockKey root;
    std::vector<BlockKey> keys;        // of its blocks
    std::vector<std::string> digests;  // of the adapters of its selection
  };

  /// Keeps it, as the one that was used last.
  void Keep(const Context& context);
  std::list<Kept>::iterator Drop(std::list<Kept>::iterator kept);
  PrefixChain Chain(absl::string_view tenant, const AdapterSelection& selection) const;

  PrefixIndex* const prefix_index_;
  BlockPool* const pool_;
  const int64_t max_kept_blocks_;
  absl::flat_hash_map<BlockKey, std::shared_ptr<Context>> in_use_;  // by the root of the chain
  std::list<Kept> kept_;                                            // least recently used first
  absl::flat_hash_map<BlockKey, std::list<Kept>::iterator> kept_by_root_;
  int64_t num_kept_blocks_ = 0;
};

}  // namespace tenon

#endif  // TENON_SERVER_SCHEDULER_CONTEXT_INDEX_H_
