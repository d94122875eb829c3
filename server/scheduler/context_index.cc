#include "server/scheduler/context_index.h"

#include <algorithm>
#include <cassert>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"

namespace tenon {
namespace {

// Contexts that nobody uses keep at most one part in so many of the pool from prefixes.
constexpr int64_t kKeptPart = 4;

// What stands for the tokens in the keys of a context's blocks: the selection, which is in the root
// of the chain, says all that there is to say, but for the slot.
std::vector<int32_t> SlotNumbers(int64_t num_slots) {
  std::vector<int32_t> slots(num_slots);
  std::iota(slots.begin(), slots.end(), 0);
  return slots;
}

}  // namespace

Context::Context(PrefixChain chain, std::shared_ptr<const AdapterSelection> selection,
                 int64_t block_size)
    : chain_(std::move(chain)),
      selection_(std::move(selection)),
      num_slots_((selection_->num_virtual_tokens() + block_size - 1) / block_size * block_size) {
  assert(num_tokens() > 0);
}

ContextIndex::ContextIndex(PrefixIndex* prefix_index, BlockPool* pool)
    : prefix_index_(prefix_index), pool_(pool), max_kept_blocks_(pool->num_blocks() / kKeptPart) {}

PrefixChain ContextIndex::Chain(absl::string_view tenant, const AdapterSelection& selection) const {
  // No selection's own key begins like this, so that no sequence's chain has the same root.
  return prefix_index_->Begin(tenant, absl::StrCat("context:", selection.key()));
}

std::shared_ptr<Context> ContextIndex::Join(
    absl::string_view tenant, const std::shared_ptr<const AdapterSelection>& selection,
    std::vector<BlockId>& blocks) {
  assert(blocks.empty());
  PrefixChain chain = Chain(tenant, *selection);
  const BlockKey root = chain.root;
  std::shared_ptr<Context>& context = in_use_[root];
  if (context == nullptr) {
    context = std::make_shared<Context>(std::move(chain), selection, pool_->block_size());
    prefix_index_->Acquire(context->chain_, SlotNumbers(context->num_slots()),
                           context->num_slots() / pool_->block_size(), blocks);
    context->blocks_ = blocks;
    context->num_computed_tokens_ = std::max<int64_t>(
        static_cast<int64_t>(blocks.size()) * pool_->block_size() - context->first_slot(), 0);
    if (context->computed()) {
      Keep(*context);
    }
  } else {
    blocks = context->blocks_;
    for (const BlockId block : blocks) {
      pool_->Share(block);
    }
  }
  ++context->num_users_;
  return context;
}

int64_t ContextIndex::NumMissing(const Context& context) const {
  return context.num_slots() / pool_->block_size() - static_cast<int64_t>(context.blocks_.size());
}

bool ContextIndex::Complete(Context& context, std::vector<BlockId>& blocks, BlockOwner owner) {
  assert(blocks == context.blocks_);
  if (!pool_->Allocate(NumMissing(context), blocks, owner)) {
    return false;
  }
  context.blocks_ = blocks;
  return true;
}

void ContextIndex::Leave(const std::shared_ptr<Context>& context) {
  if (--context->num_users_ == 0) {
    context->blocks_.clear();
    in_use_.erase(context->chain_.root);
  }
}

void ContextIndex::Commit(const Context& context, int64_t end) {
  const auto found = in_use_.find(context.chain_.root);
  if (found == in_use_.end() || found->second.get() != &context) {
    return;
  }
  Context& computed = *found->second;
  const int64_t first_slot = computed.first_slot(), block_size = pool_->block_size();
  prefix_index_->Publish(computed.chain_, SlotNumbers(computed.num_slots()), computed.blocks_,
                         (first_slot + computed.num_computed_tokens_) / block_size,
                         (first_slot + end) / block_size);
  computed.num_computed_tokens_ = end;
  if (computed.computed()) {
    Keep(computed);
  }
}

void ContextIndex::Keep(const Context& context) {
  // What was lost of it in between has blocks of its own now.
  if (const auto before = kept_by_root_.find(context.chain_.root); before != kept_by_root_.end()) {
    Drop(before->second);
  }
  const int64_t num_blocks = static_cast<int64_t>(context.chain_.keys.size());
  if (num_blocks > max_kept_blocks_) {
    return;
  }
  while (num_kept_blocks_ + num_blocks > max_kept_blocks_) {
    Drop(kept_.begin());
  }
  Kept kept{context.chain_.root, context.chain_.keys, {}};
  for (const WeightedAdapter& weighted : context.selection()->adapters()) {
    kept.digests.push_back(weighted.adapter->digest);
  }
  for (const BlockKey& key : kept.keys) {
    pool_->SetKept(key, true);
  }
  num_kept_blocks_ += num_blocks;
  kept_by_root_[kept.root] = kept_.insert(kept_.end(), std::move(kept));
}

std::list<ContextIndex::Kept>::iterator ContextIndex::Drop(std::list<Kept>::iterator kept) {
  for (const BlockKey& key : kept->keys) {
    pool_->SetKept(key, false);
  }
  num_kept_blocks_ -= static_cast<int64_t>(kept->keys.size());
  kept_by_root_.erase(kept->root);
  return kept_.erase(kept);
}

void ContextIndex::LetGo(const std::function<bool(const std::string& digest)>& is_resident) {
  for (auto next = kept_.begin(); next != kept_.end();) {
    const bool stays = std::all_of(next->digests.begin(), next->digests.end(), is_resident);
    next = stays ? std::next(next) : Drop(next);
  }
}

}  // namespace tenon
