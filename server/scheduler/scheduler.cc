#include "server/scheduler/scheduler.h"

#include <algorithm>
#include <cassert>
#include <utility>

#include "absl/strings/str_cat.h"

namespace tenon {

Scheduler::Scheduler(SchedulerOptions options, BlockPool* pool)
    : options_(std::move(options)),
      pool_(pool),
      prefix_index_(options_.cache_salt, pool),
      context_index_(&prefix_index_, pool),
      fair_(options_.fair),
      kv_shares_(pool, &fair_),
      preemption_(options_.fair, &running_, pool, &kv_shares_),
      waiting_(&fair_) {
  assert(options_.max_sequences > 0 && options_.max_batch_tokens >= options_.max_sequences);
  assert(options_.max_context_tokens > 0);
}

Scheduler::~Scheduler() {
  for (const std::unique_ptr<Sequence>& sequence : running_) {
    ReleaseBlocks(sequence.get());
  }
}

void Scheduler::Add(std::unique_ptr<Sequence> sequence) {
  Sequence* added = sequence.get();
  assert(
      Fits(added->num_prompt_tokens(), added->sampling().max_tokens, added->num_virtual_tokens()));
  added->ticket_ = next_ticket_++;
  added->chain_ = ChainOf(*added);
  added->owner_ = TenantOf(added->tenant()).owner;
  added->flow_ =
      fair_.Join(added->tenant(), added->share(), added->priority(), added->selection()->key());
  pool_->SetWeight(added->owner_, fair_.weight(*added->flow_));
  [[maybe_unused]] const bool is_new = by_id_.emplace(added->id(), added).second;
  assert(is_new);
  waiting_.Add(std::move(sequence));
}

Scheduler::Tenant& Scheduler::TenantOf(absl::string_view name) {
  const auto [entry, is_new] =
      tenants_.try_emplace(options_.fair ? std::string(name) : std::string());
  if (is_new) {
    entry->second.owner = static_cast<BlockOwner>(tenants_.size() - 1);
  }
  return entry->second;
}

PrefixChain Scheduler::ChainOf(const Sequence& sequence) const {
  const AdapterSelection& selection = *sequence.selection();
  const bool shared = options_.share_base_prefixes && selection.adapters().empty();
  // Merged rows leave other bits behind: nothing that they have computed is for one that promises
  // its own. No selection's key begins like this.
  const bool exact = sequence.deterministic() && !selection.adapters().empty();
  // "" is no tenant's name.
  return prefix_index_.Begin(shared ? "" : sequence.tenant(),
                             exact ? absl::StrCat("exact:", selection.key()) : selection.key());
}

absl::Duration Scheduler::ExpectedWait(absl::string_view tenant, absl::Time now) const {
  const auto found = tenants_.find(options_.fair ? tenant : "");
  if (found == tenants_.end()) {
    return absl::ZeroDuration();
  }
  const std::vector<Sequence*> waiting = waiting_.sequences();
  const int64_t num_before =
      std::count_if(waiting.begin(), waiting.end(), [&](const Sequence* other) {
        return other->owner_ == found->second.owner && !other->blocked();
      });
  return found->second.estimate.Until(num_before, now);
}

std::vector<Scheduler::LateSequence> Scheduler::LateSequences(absl::Time now) const {
  std::vector<LateSequence> late;
  absl::flat_hash_map<BlockOwner, int64_t> num_before;
  for (const Sequence* sequence : waiting_.sequences()) {
    if (sequence->blocked()) {
      continue;
    }
    const int64_t before = num_before[sequence->owner_]++;
    if (before == 0 || sequence->admitted_ || sequence->deadline() == absl::InfiniteFuture()) {
      continue;
    }
    const auto tenant = tenants_.find(options_.fair ? sequence->tenant() : "");
    const absl::Duration wait = tenant->second.estimate.Until(before, now);
    if (now + wait / 2 > sequence->deadline()) {
      late.push_back({sequence->id(), wait});
      --num_before[sequence->owner_];  // it will not stand before those behind it
    }
  }
  return late;
}

bool Scheduler::Fits(int64_t prompt_tokens, int64_t max_tokens, int64_t virtual_tokens) const {
  return prompt_tokens < options_.max_context_tokens - virtual_tokens &&  // room for a first token
         NumBlocksAtMost(prompt_tokens, max_tokens, virtual_tokens) <= pool_->num_blocks();
}

bool Scheduler::FitsTenant(int64_t prompt_tokens, int64_t max_tokens, int64_t virtual_tokens,
                           const TenantShare& share) const {
  return !options_.fair || NumBlocksAtMost(prompt_tokens, max_tokens, virtual_tokens) <=
                               KvShares::LimitOf(share.kv_percent, pool_->num_blocks());
}

int64_t Scheduler::NumBlocksAtMost(int64_t prompt_tokens, int64_t max_tokens,
                                   int64_t virtual_tokens) const {
  const int64_t longest =
      std::min(prompt_tokens + max_tokens, options_.max_context_tokens - virtual_tokens);
  // The last token's KV is never computed.
  return pool_->NumBlocksFor(virtual_tokens) + pool_->NumBlocksFor(longest - 1);
}

void Scheduler::Commit(const Batch& batch, std::span<const SampledToken> sampled, absl::Time now) {
  for (const ContextRow& row : batch.contexts) {
    context_index_.Commit(*row.context, row.first_token + row.num_tokens);
  }
  size_t next_sampled = 0;
  for (const BatchRow& row : batch.rows) {
    const SampledToken* token = nullptr;
    if (row.samples) {
      assert(next_sampled < sampled.size());
      token = &sampled[next_sampled++];
    }
    Sequence* sequence = Find(row.sequence->id());
    if (sequence == nullptr) {
      continue;
    }
    CommitRow(sequence, row);
    if (token == nullptr) {
      continue;
    }
    sequence->Append(token->token);
    sequence->EnterPhase(Sequence::Phase::kDecode, now);
    if (const FinishReason end = EndAfterLastToken(*sequence); end != FinishReason::kNone) {
      Finish(sequence->id(), end, now);
    }
  }
}

void Scheduler::CommitRow(Sequence* sequence, const BatchRow& row) {
  const int64_t end = row.first_token + row.num_tokens;
  if (options_.prefix_cache) {
    const std::span<const BlockId> own =
        std::span<const BlockId>(sequence->blocks_)
            .subspan(pool_->NumBlocksFor(sequence->num_context_slots()));
    prefix_index_.Publish(sequence->chain_, sequence->tokens_, own,
                          row.first_token / pool_->block_size(), end / pool_->block_size());
  }
  sequence->num_computed_tokens_ = end;
}

FinishReason Scheduler::EndAfterLastToken(const Sequence& sequence) const {
  const SamplingParams& sampling = sequence.sampling();
  const std::vector<int32_t>& stops = sampling.stop_token_ids;
  const int64_t num_generated = sequence.num_generated_tokens();
  if (num_generated > sampling.min_tokens &&
      std::find(stops.begin(), stops.end(), sequence.tokens().back()) != stops.end()) {
    return FinishReason::kStopToken;
  }
  if (num_generated >= sampling.max_tokens) {
    return FinishReason::kMaxTokens;
  }
  if (sequence.num_virtual_tokens() + sequence.num_tokens() >= options_.max_context_tokens) {
    return FinishReason::kContextLength;
  }
  return FinishReason::kNone;
}

void Scheduler::Finish(SequenceId id, FinishReason reason, absl::Time now) {
  assert(reason != FinishReason::kNone);
  Sequence* sequence = Find(id);
  if (sequence == nullptr) {
    return;
  }
  sequence->EnterPhase(sequence->phase_, now);
  sequence->finish_reason_ = reason;
  by_id_.erase(id);
  ReleaseBlocks(sequence);
  finished_.push_back(sequence->running_ ? RemoveRunning(sequence) : waiting_.Remove(*sequence));
  fair_.Leave(std::exchange(sequence->flow_, nullptr));
}

std::unique_ptr<Sequence> Scheduler::RemoveRunning(const Sequence* sequence) {
  const auto it = std::find_if(running_.begin(), running_.end(),
                               [&](const auto& other) { return other.get() == sequence; });
  std::unique_ptr<Sequence> removed = std::move(*it);
  running_.erase(it);
  removed->running_ = false;
  return removed;
}

void Scheduler::ReleaseBlocks(Sequence* sequence) {
  // Last block first: a chain is of use only from its root, so its end is to be forgotten first.
  for (auto block = sequence->blocks_.rbegin(); block != sequence->blocks_.rend(); ++block) {
    pool_->Release(*block);
  }
  sequence->blocks_.clear();
  if (sequence->context_ != nullptr) {
    context_index_.Leave(sequence->context_);
    sequence->context_.reset();
  }
}

void Scheduler::ChargeWaiting(absl::Time now) {
  for (Sequence* sequence : waiting_.sequences()) {
    sequence->EnterPhase(
        sequence->waiting_for_adapter() ? Sequence::Phase::kAdapterWait : Sequence::Phase::kQueue,
        now);
  }
}

std::vector<std::unique_ptr<Sequence>> Scheduler::TakeFinished() {
  return std::exchange(finished_, {});
}

std::vector<Sequence*> Scheduler::sequences() const {
  std::vector<Sequence*> all;
  for (const std::unique_ptr<Sequence>& sequence : running_) {
    all.push_back(sequence.get());
  }
  const std::vector<Sequence*> queued = waiting_.sequences();
  all.insert(all.end(), queued.begin(), queued.end());
  return all;
}

std::vector<SequenceId> Scheduler::UsersOf(const Context& context) const {
  std::vector<SequenceId> users;
  for (const std::unique_ptr<Sequence>& sequence : running_) {
    if (sequence->context_.get() == &context) {
      users.push_back(sequence->id());
    }
  }
  return users;
}

Sequence* Scheduler::Find(SequenceId id) const {
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : found->second;
}

}  // namespace tenon
