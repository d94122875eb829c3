#include "server/scheduler/scheduler.h"

#include <algorithm>
#include <cassert>
#include <tuple>
#include <utility>

namespace tenon {

Scheduler::Scheduler(SchedulerOptions options, BlockPool* pool)
    : options_(std::move(options)),
      pool_(pool),
      prefix_index_(options_.cache_salt, pool),
      context_index_(&prefix_index_, pool) {
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
  added->chain_ = prefix_index_.Begin(added->tenant(), added->selection()->key());
  [[maybe_unused]] const bool is_new = by_id_.emplace(added->id(), added).second;
  assert(is_new);
  waiting_.Add(std::move(sequence));
}

bool Scheduler::Fits(int64_t prompt_tokens, int64_t max_tokens, int64_t virtual_tokens) const {
  const int64_t room = options_.max_context_tokens - virtual_tokens;
  if (prompt_tokens >= room) {
    return false;  // no room for a first token
  }
  const int64_t longest = std::min(prompt_tokens + max_tokens, room);
  // The last token's KV is never computed.
  return NumBlocksFor(virtual_tokens) + NumBlocksFor(longest - 1) <= pool_->num_blocks();
}

int64_t Scheduler::NumBlocksFor(int64_t num_tokens) const {
  return (num_tokens + pool_->block_size() - 1) / pool_->block_size();
}

int64_t Scheduler::NumBlocksFor(const Sequence& sequence, int64_t num_tokens) const {
  return NumBlocksFor(sequence.num_context_slots() + num_tokens);
}

Batch Scheduler::Schedule(absl::Time now) {
  Plan plan{.now = now, .tokens_left = options_.max_batch_tokens, .rows = {}, .contexts = {}};
  const std::vector<Sequence*> active = ActiveSequences();
  for (const bool decodes : {true, false}) {
    for (Sequence* sequence : active) {
      const bool is_decode =
          (sequence->context_ == nullptr || sequence->context_->computed()) &&
          static_cast<int64_t>(sequence->tokens_.size()) - sequence->num_computed_tokens_ == 1;
      if (sequence->running_ && is_decode == decodes) {  // it may have been preempted meanwhile
        PlanRow(sequence, plan);
      }
    }
  }
  Admit(options_.max_sequences - static_cast<int64_t>(plan.rows.size()), plan);
  ChargeWaiting(now);
  return BuildBatch(std::move(plan));
}

std::vector<Sequence*> Scheduler::ActiveSequences() const {
  std::vector<Sequence*> active;
  for (const std::unique_ptr<Sequence>& sequence : running_) {
    if (static_cast<int64_t>(active.size()) == options_.max_sequences) {
      break;
    }
    if (!sequence->blocked()) {
      active.push_back(sequence.get());
    }
  }
  return active;
}

void Scheduler::PlanRow(Sequence* sequence, Plan& plan) {
  if (!PlanContext(*sequence, plan) || plan.tokens_left == 0) {
    return;
  }
  const int64_t num_uncomputed =
      static_cast<int64_t>(sequence->tokens_.size()) - sequence->num_computed_tokens_;
  const int64_t num_tokens = std::min(num_uncomputed, plan.tokens_left);
  const int64_t num_new_blocks =
      NumBlocksFor(*sequence, sequence->num_computed_tokens_ + num_tokens) -
      static_cast<int64_t>(sequence->blocks_.size());
  if (!MakeRoom(sequence, num_new_blocks, plan)) {
    return;
  }
  pool_->Allocate(std::max<int64_t>(num_new_blocks, 0), sequence->blocks_);
  plan.rows.push_back({sequence, num_tokens});
  plan.tokens_left -= num_tokens;
}

bool Scheduler::PlanContext(const Sequence& sequence, Plan& plan) {
  const std::shared_ptr<Context>& context = sequence.context_;
  if (context == nullptr || context->computed()) {
    return true;
  }
  auto part = std::find_if(plan.contexts.begin(), plan.contexts.end(),
                           [&](const Plan::ContextPart& p) { return p.context == context; });
  if (part == plan.contexts.end()) {
    if (plan.tokens_left == 0) {
      return false;
    }
    const int64_t num_tokens =
        std::min(context->num_tokens() - context->num_computed_tokens(), plan.tokens_left);
    part = plan.contexts.insert(part, {context, num_tokens});
    plan.tokens_left -= num_tokens;
  }
  return context->num_computed_tokens() + part->num_tokens == context->num_tokens();
}

bool Scheduler::MakeRoom(Sequence* sequence, int64_t num_blocks, Plan& plan) {
  while (num_blocks > pool_->num_available()) {
    Sequence* victim = FindVictim(*sequence);
    if (victim == nullptr) {
      Preempt(sequence, plan);
      return false;
    }
    Preempt(victim, plan);
  }
  return true;
}

Sequence* Scheduler::FindVictim(const Sequence& sequence) const {
  for (auto it = running_.rbegin(); it != running_.rend(); ++it) {
    if ((*it)->blocked()) {
      return it->get();
    }
  }
  Sequence* youngest = running_.back().get();
  return youngest->ticket() > sequence.ticket() ? youngest : nullptr;
}

void Scheduler::Preempt(Sequence* sequence, Plan& plan) {
  const auto row = std::find_if(plan.rows.begin(), plan.rows.end(),
                                [&](const Plan::Row& r) { return r.sequence == sequence; });
  if (row != plan.rows.end()) {
    plan.tokens_left += row->num_tokens;
    plan.rows.erase(row);
  }
  const std::shared_ptr<Context> context = sequence->context_;
  ReleaseBlocks(sequence);
  if (context != nullptr && context->num_users() == 0) {  // then this step need not compute it
    const auto part =
        std::find_if(plan.contexts.begin(), plan.contexts.end(),
                     [&](const Plan::ContextPart& p) { return p.context == context; });
    if (part != plan.contexts.end()) {
      plan.tokens_left += part->num_tokens;
      plan.contexts.erase(part);
    }
  }
  sequence->num_computed_tokens_ = 0;
  sequence->EnterPhase(Sequence::Phase::kQueue, plan.now);
  waiting_.Add(RemoveRunning(sequence));
  ++num_preemptions_;
}

void Scheduler::Admit(int64_t rows_left, Plan& plan) {
  const auto may_run = [this](const Sequence& sequence) {
    return !sequence.blocked() && !AwaitsLeader(sequence);
  };
  for (; rows_left > 0 && plan.tokens_left > 0; --rows_left) {
    Sequence* next = waiting_.Next(may_run);
    if (next == nullptr || !TryAdmit(next, plan)) {
      return;  // those behind it do not overtake it for blocks
    }
  }
}

bool Scheduler::TryAdmit(Sequence* sequence, Plan& plan) {
  const int64_t num_tokens = static_cast<int64_t>(sequence->tokens_.size());
  int64_t num_needed = NumBlocksFor(num_tokens) + NumPromisedBlocks();
  if (sequence->num_virtual_tokens() > 0) {
    sequence->context_ =
        context_index_.Join(sequence->tenant(), sequence->selection(), sequence->blocks_);
    num_needed += context_index_.NumMissing(*sequence->context_);
  }
  std::vector<BlockId> cached;  // of its own; those of the context may still have to come first
  if (MayUsePrefixCache(*sequence)) {
    const int64_t max_blocks =
        (num_tokens - 1) / pool_->block_size();  // the last token is computed
    prefix_index_.Acquire(sequence->chain_, sequence->tokens_, max_blocks, cached);
    num_needed -= static_cast<int64_t>(cached.size());
  }
  if (num_needed > pool_->num_available() &&
      num_needed > pool_->num_available() + NumReclaimableBlocks()) {  // the second takes a while
    sequence->blocks_.insert(sequence->blocks_.end(), cached.begin(), cached.end());
    ReleaseBlocks(sequence);
    return false;
  }
  Start(sequence, cached, plan);
  return true;
}

void Scheduler::Start(Sequence* sequence, std::span<const BlockId> cached, Plan& plan) {
  const auto place = std::find_if(running_.begin(), running_.end(), [&](const auto& other) {
    return other->ticket() > sequence->ticket();
  });
  running_.insert(place, waiting_.Remove(*sequence));
  sequence->running_ = true;
  sequence->num_computed_tokens_ = static_cast<int64_t>(cached.size()) * pool_->block_size();
  if (!std::exchange(sequence->admitted_, true)) {
    sequence->num_cached_tokens_ = sequence->num_computed_tokens_;
  }
  sequence->EnterPhase(
      sequence->num_generated_tokens() == 0 ? Sequence::Phase::kPrefill : Sequence::Phase::kDecode,
      plan.now);
  if (Context* context = sequence->context_.get(); context != nullptr) {
    // What the caller counted as available or reclaimable is.
    [[maybe_unused]] const bool has_room =
        MakeRoom(sequence, context_index_.NumMissing(*context), plan);
    assert(has_room);
    context_index_.Complete(*context, sequence->blocks_);
  }
  sequence->blocks_.insert(sequence->blocks_.end(), cached.begin(), cached.end());
  PlanRow(sequence, plan);
}

bool Scheduler::MayUsePrefixCache(const Sequence& sequence) const {
  const bool wants_prompt_logprobs =
      sequence.sampling().prompt_logprobs.has_value() && sequence.num_generated_tokens() == 0;
  return options_.prefix_cache && !wants_prompt_logprobs;
}

bool Scheduler::AwaitsLeader(const Sequence& sequence) const {
  if (!sequence.leader().has_value() || !MayUsePrefixCache(sequence) ||
      sequence.num_prompt_tokens() <= pool_->block_size()) {
    return false;
  }
  const Sequence* leader = Find(*sequence.leader());
  return leader != nullptr && !leader->blocked() && leader->num_generated_tokens() == 0;
}

int64_t Scheduler::NumPromisedBlocks() const {
  int64_t promised = 0;
  for (const std::unique_ptr<Sequence>& sequence : running_) {
    if (!sequence->blocked()) {
      promised += NumBlocksFor(*sequence, static_cast<int64_t>(sequence->tokens_.size())) -
                  static_cast<int64_t>(sequence->blocks_.size());
    }
  }
  return promised;
}

int64_t Scheduler::NumReclaimableBlocks() const {
  absl::flat_hash_map<BlockId, int32_t> held;
  int64_t reclaimable = 0;
  for (const std::unique_ptr<Sequence>& sequence : running_) {
    if (!sequence->blocked()) {
      continue;
    }
    for (const BlockId block : sequence->blocks_) {
      if (++held[block] == pool_->ref_count(block)) {
        ++reclaimable;
      }
    }
  }
  return reclaimable;
}

Batch Scheduler::BuildBatch(Plan plan) const {
  std::sort(plan.rows.begin(), plan.rows.end(), [](const Plan::Row& a, const Plan::Row& b) {
    const auto rank = [](const Sequence& sequence) {
      return std::tuple<bool, const std::string&, SequenceId>(
          sequence.merged(), sequence.selection()->key(), sequence.id());
    };
    return rank(*a.sequence) < rank(*b.sequence);
  });
  Batch batch;
  for (const auto& [sequence, num_tokens] : plan.rows) {
    const int64_t row = static_cast<int64_t>(batch.rows.size());
    const int64_t end = sequence->num_computed_tokens_ + num_tokens;
    batch.rows.push_back({.sequence = sequence,
                          .first_token = sequence->num_computed_tokens_,
                          .num_tokens = num_tokens,
                          .samples = end == static_cast<int64_t>(sequence->tokens_.size())});
    if (batch.segments.empty() || batch.segments.back().merged != sequence->merged() ||
        batch.segments.back().selection->key() != sequence->selection()->key()) {
      batch.segments.push_back({.row_begin = row,
                                .row_end = row,
                                .token_begin = batch.num_tokens,
                                .token_end = batch.num_tokens,
                                .selection = sequence->selection(),
                                .merged = sequence->merged()});
    }
    batch.num_tokens += num_tokens;
    batch.segments.back().row_end = row + 1;
    batch.segments.back().token_end = batch.num_tokens;
  }
  AddContexts(plan, batch);
  return batch;
}

void Scheduler::AddContexts(const Plan& plan, Batch& batch) const {
  for (const Plan::ContextPart& part : plan.contexts) {
    const auto user = std::find_if(running_.begin(), running_.end(), [&](const auto& sequence) {
      return sequence->context_ == part.context;
    });
    batch.contexts.push_back({.context = part.context,
                              .user = user->get(),
                              .first_token = part.context->num_computed_tokens(),
                              .num_tokens = part.num_tokens});
    batch.num_context_tokens += part.num_tokens;
  }
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
    const std::span<const BlockId> own = std::span<const BlockId>(sequence->blocks_)
                                             .subspan(NumBlocksFor(sequence->num_context_slots()));
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
  if (sequence.num_virtual_tokens() + static_cast<int64_t>(sequence.tokens().size()) >=
      options_.max_context_tokens) {
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
