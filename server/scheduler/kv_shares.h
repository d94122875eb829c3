// KvShares: how many KV blocks a tenant holds, against what it may.
#ifndef TENON_SERVER_SCHEDULER_KV_SHARES_H_
#define TENON_SERVER_SCHEDULER_KV_SHARES_H_

#include <cstdint>

#include "server/scheduler/block_pool.h"
#include "server/scheduler/fair_share.h"
#include "server/scheduler/sequence.h"

namespace tenon {

/// Two bounds on the blocks that the sequences of a tenant hold. Its share is the part of the pool
/// that its weight gives it among those who have sequences in flight: it may hold more as long as
/// nobody else wants it, and within it nobody takes blocks away. Its limit, when it has one, holds
/// always.
///
/// All questions are about the tenant of a sequence in flight. Not thread-safe (engine thread).
class KvShares {
 public:
  /// Both are borrowed and outlive this.
  KvShares(const BlockPool* pool, const FairShare* fair) : pool_(pool), fair_(fair) {}

  /// Blocks held per weight: who has the largest is the first to give some up.
  double Load(const Sequence& sequence) const;
  /// Whether the tenant stays within its share with `num_more` blocks.
  bool IsWithin(const Sequence& sequence, int64_t num_more) const;
  /// Blocks that it holds beyond its share.
  int64_t Excess(const Sequence& sequence) const;

  /// How many more blocks the tenant's limit allows.
  int64_t LeftByLimit(const Sequence& sequence) const;

  /// The blocks that a limit of so many percent allows; more than there are for 0.
  static int64_t LimitOf(int64_t kv_percent, int64_t num_blocks);

 private:
  int64_t Share(const Sequence& sequence) const;

  const BlockPool* const pool_;
  const FairShare* const fair_;
};

}  // namespace tenon

#endif  // TENON_SERVER_SCHEDULER_KV_SHARES_H_
