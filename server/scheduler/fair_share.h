// FairShare: who is to be served next, by what each has been given so far.
#ifndef TENON_SERVER_SCHEDULER_FAIR_SHARE_H_
#define TENON_SERVER_SCHEDULER_FAIR_SHARE_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"

namespace tenon {

/// What a request's tenant may have of the engine. Plain data, as of the request's arrival.
struct TenantShare {
  double weight = 1.0;     ///< > 0; service is shared in proportion to it
  int64_t kv_percent = 0;  ///< of the KV blocks, that its sequences may hold; 0: no limit
};

/// Priorities of requests within their tenant.
inline constexpr int32_t kMinPriority = -2, kMaxPriority = 2;
/// How much more of its tenant's service a priority gets than the one below while both wait.
inline constexpr double kPriorityFactor = 4.0;

/// Virtual token counters (VTC, arXiv:2401.00588), weighted and in three levels: service is shared
/// among tenants by weight, within a tenant among its priorities by powers of kPriorityFactor, and
/// within a priority equally among selections of adapters. Every level keeps a counter of the
/// service that each of its members has had, divided by the member's weight; the lowest is next.
///
/// Nobody starves: a counter stands still while its owner waits, and the others' grow. Nobody saves
/// up: Settle lifts the counter of who had all that he wanted to that of the least served of those
/// who still want more, and what begins or comes back begins there. While any two want more than
/// they get, their counters therefore differ by the cost of one row at most, apart from what a
/// single choice can give at once (a prefill chunk).
///
/// When disabled there is one flow for all, so that only the order of arrival counts.
///
/// Not thread-safe (engine thread). No clock.
///
///   FairShare::Flow* flow = fair.Join("acme", {.weight = 2}, 0, selection.key());
///   if (fair.Before(*flow, *other)) { ... fair.Charge(flow, cost); }
///   fair.Settle(flows_that_want_more);       // once a step
///   fair.Leave(flow);
class FairShare {
 private:
  struct Node;

 public:
  /// The sequences of one tenant, priority and selection. Valid while somebody has joined it.
  class Flow;

  explicit FairShare(bool enabled = true);
  ~FairShare();
  FairShare(const FairShare&) = delete;
  FairShare& operator=(const FairShare&) = delete;

  /// One sequence more. The tenant's weight is that of who joined last.
  Flow* Join(absl::string_view tenant, const TenantShare& share, int32_t priority,
             absl::string_view selection_key);
  /// One sequence less; the last one's leaving ends the flow.
  void Leave(Flow* flow);

  /// Notes service of a cost >= 0.
  void Charge(Flow* flow, double cost);

  /// Whether `a` is to be served before `b`: a strict order of all flows. At equal counters the
  /// higher priority goes first, then whoever joined first.
  bool Before(const Flow& a, const Flow& b) const;

  /// Ends a round of service. `unserved`: flows that could have used more than they got.
  void Settle(std::span<Flow* const> unserved);

  /// Sum of the weights of tenants with sequences in flight.
  double total_weight() const;
  double weight(const Flow& flow) const;
  /// The tenant's service so far, divided by its weight, lifts included.
  double tenant_counter(const Flow& flow) const;
  /// Members that are remembered, at all levels: those in flight, and those in debt.
  int64_t num_members() const;

 private:
  Node* JoinChild(Node* parent, absl::string_view key, double weight, int32_t rank);
  void LeaveChild(Node* child);
  static void Lift(Node* parent, uint64_t round);
  static bool Before(const Node& a, const Node& b);

  const bool enabled_;
  std::unique_ptr<Node> root_;
  uint64_t next_order_ = 1;
  uint64_t round_ = 0;
};

}  // namespace tenon

#endif  // TENON_SERVER_SCHEDULER_FAIR_SHARE_H_
