#include "server/scheduler/context_index.h"

#include <algorithm>
#include <cassert>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"

namespace tenon {
namespace {

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
    : prefix_index_(prefix_index), pool_(pool) {}

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
}

}  // namespace tenon
