// PreemptionPolicy: who gives up KV blocks, and for whom.
#ifndef TENON_SERVER_SCHEDULER_PREEMPTION_POLICY_H_
#define TENON_SERVER_SCHEDULER_PREEMPTION_POLICY_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "server/scheduler/block_pool.h"
#include "server/scheduler/kv_shares.h"
#include "server/scheduler/sequence.h"

namespace tenon {

/// Chooses among the running sequences; changes nothing. A blocked one gives up its blocks first,
/// then one of a tenant that holds more than its share (KvShares), or a lower-priority or younger
/// one of the same tenant. When service is not shared, the youngest.
///
/// In all questions `sequence` wants `num_blocks` more, and nobody takes anything from `oldest`:
/// the oldest sequence that runs and is not blocked, null when there is none.
/// Not thread-safe (engine thread).
class PreemptionPolicy {
 public:
  /// `running`, oldest first, and the others are borrowed and outlive the policy. `fair`: service
  /// is shared.
  PreemptionPolicy(bool fair, const std::vector<std::unique_ptr<Sequence>>* running,
                   const BlockPool* pool, const KvShares* kv_shares)
      : fair_(fair), running_(running), pool_(pool), kv_shares_(kv_shares) {}

  /// Whether its tenant's limit stands in the way, and others of its tenant could give something
  /// up.
  bool IsHeldByLimit(const Sequence& sequence, int64_t num_blocks) const;
  /// Whom `sequence` may take blocks from, the one to lose first. Null when nobody.
  Sequence* FindVictim(const Sequence& sequence, int64_t num_blocks, const Sequence* oldest) const;
  /// The same among its own tenant's.
  Sequence* FindOwnVictim(const Sequence& sequence, int64_t num_blocks,
                          const Sequence* oldest) const;

  /// Blocks that active sequences still need for tokens they have already, and that `sequence` has
  /// to leave to them.
  int64_t NumPromisedBlocks(const Sequence& sequence, int64_t num_blocks,
                            const Sequence* oldest) const;
  /// Blocks that would become available to `sequence` if others were preempted.
  int64_t NumReclaimableBlocks(const Sequence& sequence, int64_t num_blocks,
                               const Sequence* oldest) const;

 private:
  /// The first blocked one of `candidates` (pointers to sequences, in that order), else the one to
  /// lose first of those that `sequence` may take from.
  template <typename Candidates>
  Sequence* Choose(Candidates candidates, const Sequence& sequence, int64_t num_blocks,
                   const Sequence* oldest) const;
  bool MayTakeFrom(const Sequence& sequence, const Sequence& other, int64_t num_blocks,
                   const Sequence* oldest) const;
  /// Whether `sequence` may count on what `other` holds beyond its tenant's share.
  bool Outranks(const Sequence& sequence, const Sequence& other, int64_t num_blocks,
                const Sequence* oldest) const;
  /// Whether `a` is to give up its blocks before `b`.
  bool LosesFirst(const Sequence& a, const Sequence& b) const;

  const bool fair_;
  const std::vector<std::unique_ptr<Sequence>>* const running_;
  const BlockPool* const pool_;
  const KvShares* const kv_shares_;
};

}  // namespace tenon

#endif  // TENON_SERVER_SCHEDULER_PREEMPTION_POLICY_H_
