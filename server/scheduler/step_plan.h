// StepPlan: a step under construction.
#ifndef TENON_SERVER_SCHEDULER_STEP_PLAN_H_
#define TENON_SERVER_SCHEDULER_STEP_PLAN_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "server/scheduler/batch.h"
#include "server/scheduler/block_pool.h"
#include "server/scheduler/context.h"
#include "server/scheduler/sequence.h"

namespace tenon {

/// What Scheduler::Schedule has decided so far: rows with tokens, places without tokens yet, and
/// what is left to give out. Borrows its sequences.
///
/// Not thread-safe (engine thread).
/// Invariant: tokens_left and the tokens of rows and contexts sum to the step's budget, until a
/// bound lowers it.
struct StepPlan {
  struct Row {
    Sequence* sequence;
    int64_t num_tokens;
  };
  struct ContextPart {
    std::shared_ptr<const Context> context;
    int64_t num_tokens;
  };

  /// An empty plan in front of running sequences that are not blocked, oldest first.
  StepPlan(uint64_t number, absl::Time time, int64_t max_tokens,
           const std::vector<Sequence*>& active);

  uint64_t step;  ///< as Scheduler counts them
  absl::Time now;
  int64_t tokens_left;
  std::vector<Row> rows;
  std::vector<ContextPart> contexts;
  std::vector<Sequence*> prefills;  ///< running ones that have a place in the step, but no row yet
  const Sequence* oldest;           ///< of those that run and are not blocked
  absl::flat_hash_map<BlockOwner, int64_t> num_active;  ///< running and not blocked, by tenant
  int64_t total_active = 0;                             ///< of all tenants

  void AddActive(const Sequence& sequence);
  void RemoveActive(const Sequence& sequence);

  int64_t num_places() const { return static_cast<int64_t>(rows.size() + prefills.size()); }
  /// The sequences that have a place, with a row or without.
  std::vector<Sequence*> placed() const;
  /// Tokens that `prefills` still have to compute.
  int64_t NumPrefillTokens() const;

  /// What the step computes of that context; contexts.end() when nothing.
  std::vector<ContextPart>::iterator FindContext(const Context& context);

  /// Takes row or place away, and gives the row's tokens back. Nothing happens without either.
  void DropPlace(const Sequence* sequence);
  /// Computes nothing of that context, and gives its tokens back.
  void DropContext(const Context& context);

  /// The plan as the model runs it: rows sorted by selection, merged ones last, a segment for each.
  /// `running` are all running sequences, among them a user of each context.
  Batch Build(const std::vector<std::unique_ptr<Sequence>>& running) const;
};

}  // namespace tenon

#endif  // TENON_SERVER_SCHEDULER_STEP_PLAN_H_
