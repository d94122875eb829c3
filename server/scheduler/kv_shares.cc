#include "server/scheduler/kv_shares.h"

#include <algorithm>
#include <limits>

namespace tenon {
namespace {

// More than any pool has, and far enough from the end of the range that sums with it stay in it.
constexpr int64_t kUnlimitedBlocks = std::numeric_limits<int64_t>::max() / 2;

}  // namespace

double KvShares::Load(const Sequence& sequence) const {
  return static_cast<double>(pool_->num_used(sequence.owner())) / fair_->weight(*sequence.flow());
}

int64_t KvShares::Share(const Sequence& sequence) const {
  const double part = fair_->weight(*sequence.flow()) / fair_->total_weight();
  return static_cast<int64_t>(part * static_cast<double>(pool_->num_blocks()));
}

bool KvShares::IsWithin(const Sequence& sequence, int64_t num_more) const {
  return pool_->num_used(sequence.owner()) + num_more <= Share(sequence);
}

int64_t KvShares::Excess(const Sequence& sequence) const {
  return std::max<int64_t>(pool_->num_used(sequence.owner()) - Share(sequence), 0);
}

int64_t KvShares::LimitOf(int64_t kv_percent, int64_t num_blocks) {
  return kv_percent == 0 ? kUnlimitedBlocks : std::max<int64_t>(num_blocks * kv_percent / 100, 1);
}

int64_t KvShares::LeftByLimit(const Sequence& sequence) const {
  return LimitOf(sequence.share().kv_percent, pool_->num_blocks()) -
         pool_->num_used(sequence.owner());
}

}  // namespace tenon
