#include "server/scheduler/fair_share.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"

namespace tenon {
namespace {

// Idle members beyond the active ones that a level keeps before it looks whom it can forget.
constexpr size_t kIdleMembersKept = 64;

}  // namespace

// A member of a level, and the level of its own members below it.
struct FairShare::Node {
  std::string key;
  Node* parent = nullptr;
  double weight = 1.0;
  double counter = 0.0;
  int32_t rank = 0;          // decides at equal counters: higher first
  uint64_t order = 0;        // decides at equal ranks: when it last became active
  int64_t num_joined = 0;    // sequences in flight below it
  uint64_t unserved_in = 0;  // the last round in which somebody below it wanted more

  absl::flat_hash_map<std::string, std::unique_ptr<Node>> members;
  std::vector<Node*> active;  // members with sequences in flight
  double active_weight = 0.0;
  double floor = 0.0;  // what a member that comes or comes back begins at; never falls

  virtual ~Node() = default;
};

// The nodes of the lowest level.
class FairShare::Flow : public FairShare::Node {};

FairShare::FairShare(bool enabled) : enabled_(enabled), root_(std::make_unique<Node>()) {}

FairShare::~FairShare() = default;

FairShare::Flow* FairShare::Join(absl::string_view tenant, const TenantShare& share,
                                 int32_t priority, absl::string_view selection_key) {
  assert(share.weight > 0);
  if (!enabled_) {
    return static_cast<Flow*>(
        JoinChild(JoinChild(JoinChild(root_.get(), "", 1, 0), "", 1, 0), "", 1, 0));
  }
  Node* const owner = JoinChild(root_.get(), tenant, share.weight, 0);
  Node* const level =
      JoinChild(owner, absl::StrCat(priority), std::pow(kPriorityFactor, priority), priority);
  return static_cast<Flow*>(JoinChild(level, selection_key, 1, 0));
}

FairShare::Node* FairShare::JoinChild(Node* parent, absl::string_view key, double weight,
                                      int32_t rank) {
  std::unique_ptr<Node>& member = parent->members[key];
  if (member == nullptr) {
    member = std::make_unique<Flow>();
    member->key = std::string(key);
    member->parent = parent;
    member->rank = rank;
  }
  if (member->num_joined++ == 0) {
    member->counter = std::max(member->counter, parent->floor);
    member->order = next_order_++;
    member->weight = 0.0;
    parent->active.push_back(member.get());
  }
  parent->active_weight += weight - member->weight;
  member->weight = weight;
  return member.get();
}

void FairShare::Leave(Flow* flow) {
  for (Node* node = flow; node->parent != nullptr;) {
    Node* const parent = node->parent;
    LeaveChild(node);
    node = parent;
  }
}

void FairShare::LeaveChild(Node* child) {
  Node* const parent = child->parent;
  assert(child->num_joined > 0);
  if (--child->num_joined > 0) {
    return;
  }
  parent->active.erase(std::find(parent->active.begin(), parent->active.end(), child));
  parent->active_weight = parent->active.empty() ? 0.0 : parent->active_weight - child->weight;
  if (child->counter <= parent->floor) {
    parent->members.erase(child->key);  // it would come back at the floor as well
    return;
  }
  if (parent->members.size() > 2 * parent->active.size() + kIdleMembersKept) {
    absl::erase_if(parent->members, [parent](const auto& item) {
      return item.second->num_joined == 0 && item.second->counter <= parent->floor;
    });
  }
}

void FairShare::Charge(Flow* flow, double cost) {
  assert(cost >= 0);
  for (Node* node = flow; node->parent != nullptr; node = node->parent) {
    node->counter += cost / node->weight;
  }
}

bool FairShare::Before(const Node& a, const Node& b) {
  if (a.counter != b.counter) {
    return a.counter < b.counter;
  }
  return a.rank != b.rank ? a.rank > b.rank : a.order < b.order;
}

bool FairShare::Before(const Flow& a, const Flow& b) const {
  const Node &priority_a = *a.parent, &priority_b = *b.parent;
  if (priority_a.parent != priority_b.parent) {
    return Before(*priority_a.parent, *priority_b.parent);
  }
  return &priority_a != &priority_b ? Before(priority_a, priority_b)
                                    : Before(static_cast<const Node&>(a), b);
}

void FairShare::Settle(std::span<Flow* const> unserved) {
  ++round_;
  for (Flow* flow : unserved) {
    for (Node* node = flow; node->parent != nullptr; node = node->parent) {
      node->unserved_in = round_;
    }
  }
  Lift(root_.get(), round_);
  for (Node* tenant : root_->active) {
    Lift(tenant, round_);
    for (Node* priority : tenant->active) {
      Lift(priority, round_);
    }
  }
}

void FairShare::Lift(Node* parent, uint64_t round) {
  double least_unserved = std::numeric_limits<double>::infinity(), most = parent->floor;
  for (const Node* member : parent->active) {
    most = std::max(most, member->counter);
    if (member->unserved_in == round) {
      least_unserved = std::min(least_unserved, member->counter);
    }
  }
  // When everybody had what he wanted nobody has a claim on anybody.
  parent->floor = std::max(parent->floor, std::min(least_unserved, most));
  for (Node* member : parent->active) {
    if (member->unserved_in != round) {
      member->counter = std::max(member->counter, parent->floor);
    }
  }
}

double FairShare::total_weight() const { return root_->active_weight; }

double FairShare::weight(const Flow& flow) const { return flow.parent->parent->weight; }

double FairShare::tenant_counter(const Flow& flow) const { return flow.parent->parent->counter; }

int64_t FairShare::num_members() const {
  int64_t count = 0;
  std::vector<const Node*> nodes = {root_.get()};
  while (!nodes.empty()) {
    const Node* node = nodes.back();
    nodes.pop_back();
    for (const auto& [key, member] : node->members) {
      ++count;
      nodes.push_back(member.get());
    }
  }
  return count;
}

}  // namespace tenon
