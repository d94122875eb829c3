// Random traffic on small pools: whatever is preempted, shared, paused or cancelled, every sequence
// gets the tokens that it would get alone, and no block is lost or written by two.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>

#include "server/scheduler/scheduler.h"
#include "tests/server/scheduler/scheduler_fixture.h"

namespace tenon {
namespace {

constexpr int32_t kVocab = 13;  // small, so that stop tokens and equal prefixes are frequent

class Traffic {
 public:
  explicit Traffic(uint64_t seed)
      : random_(seed),
        pool_(Draw(6, 24), Draw(1, 5)),
        options_{.max_batch_tokens = 0,
                 .max_sequences = Draw(1, 6),
                 .prefill_chunk_tokens = Draw(0, 6),
                 .max_context_tokens = Draw(8, 60),
                 .cache_salt = "base",
                 .prefix_cache = Draw(0, 4) > 0,
                 .share_base_prefixes = false,
                 .fair = Draw(0, 3) > 0},
        model_(pool_.num_blocks(), pool_.block_size(), kVocab) {
    options_.max_batch_tokens = options_.max_sequences + Draw(0, 12);
    scheduler_ = std::make_unique<Scheduler>(options_, &pool_);
    if (Draw(0, 1) == 0) {
      kv_percent_[Draw(0, 2)] = Draw(40, 90);
    }
    for (int i = 0; i < 4; ++i) {
      prefixes_.push_back(RandomTokens(Draw(0, 16)));
    }
  }

  /// Random arrivals, pauses and cancels, then one step.
  void Step() {
    for (int64_t i = Draw(-2, 2); i > 0; --i) {
      Arrive();
    }
    for (Sequence* sequence : scheduler_->sequences()) {
      if (Draw(0, 9) == 0) {
        sequence->set_paused(!sequence->paused());
      }
      if (sequence->waiting_for_adapter() && Draw(0, 5) == 0) {
        sequence->set_waiting_for_adapter(false);
      }
      if (Draw(0, 199) == 0) {
        scheduler_->Finish(sequence->id(), FinishReason::kCancelled, now_);
      }
    }
    RunStep();
  }

  /// Lets everything that is left end undisturbed; fails when it takes too long.
  void Finish() {
    for (Sequence* sequence : scheduler_->sequences()) {
      sequence->set_paused(false);
      sequence->set_waiting_for_adapter(false);
    }
    for (int step = 0; !scheduler_->sequences().empty(); ++step) {
      ASSERT_LT(step, 20'000) << "somebody starves";
      RunStep();
      if (::testing::Test::HasFatalFailure()) {
        return;
      }
    }
    EXPECT_EQ(pool_.num_used(), 0);
    EXPECT_EQ(num_added_, num_finished_);
  }

  int64_t num_preemptions() const { return scheduler_->num_preemptions(); }
  int64_t num_cached_tokens() const { return num_cached_tokens_; }
  int64_t num_context_tokens() const { return num_context_tokens_; }

 private:
  int64_t Draw(int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random_);
  }
  std::vector<int32_t> RandomTokens(int64_t count) {
    std::vector<int32_t> tokens(count);
    std::generate(tokens.begin(), tokens.end(), [&] { return Draw(0, kVocab - 1); });
    return tokens;
  }

  /// One request of one to three samples, when it fits.
  void Arrive() {
    std::vector<int32_t> prompt = prefixes_[Draw(0, 3)];
    const std::vector<int32_t> tail = RandomTokens(Draw(1, 10));
    prompt.insert(prompt.end(), tail.begin(), tail.end());
    const int32_t max_tokens = static_cast<int32_t>(Draw(1, 20));
    // The last two have virtual tokens.
    const int64_t adapter = Draw(0, 4);
    const std::string digest = std::vector<std::string>{"", "aa", "bb", "cc", "dd"}[adapter];
    const int64_t num_virtual = std::vector<int64_t>{0, 0, 0, 3, 11}[adapter];
    Sequence::Options options = SequenceOptions(next_id_, prompt, max_tokens);
    options.selection = SelectionOf(digest, num_virtual);
    options.arrival = now_;
    const int64_t tenant = Draw(0, 2);
    options.tenant = std::vector<std::string>{"acme", "bravo", "crux"}[tenant];
    options.share = {.weight = std::vector<double>{1, 2, 7}[tenant],
                     .kv_percent = kv_percent_[tenant]};
    options.priority = static_cast<int32_t>(Draw(kMinPriority, kMaxPriority));
    options.sampling.stop_token_ids = {static_cast<int32_t>(Draw(0, kVocab - 1))};
    options.sampling.min_tokens = static_cast<int32_t>(Draw(0, max_tokens));
    if (Draw(0, 9) == 0) {
      options.sampling.prompt_logprobs = 0;
    }
    const int64_t length = static_cast<int64_t>(prompt.size());
    if (!scheduler_->Fits(length, max_tokens, num_virtual) ||
        !scheduler_->FitsTenant(length, max_tokens, num_virtual, options.share)) {
      return;
    }
    const bool cold = Draw(0, 3) == 0;
    const SequenceId leader = next_id_;
    for (int64_t i = Draw(1, 3); i > 0; --i) {
      auto sequence = std::make_unique<Sequence>(options);
      sequence->set_waiting_for_adapter(cold);
      scheduler_->Add(std::move(sequence));
      ++num_added_;
      options.id = ++next_id_;
      options.leader = leader;
    }
  }

  void RunStep() {
    now_ += absl::Milliseconds(Draw(1, 9));
    const Sequence* oldest = OldestActive();
    const bool can_run = AnyUnblocked();
    const int64_t num_before = oldest == nullptr ? 0 : oldest->num_computed_tokens();
    const Batch batch = scheduler_->Schedule(now_);
    CheckBatch(batch);
    ASSERT_EQ(!batch.empty(), can_run);
    if (oldest != nullptr) {
      ASSERT_EQ(oldest->num_computed_tokens(), num_before) << "the oldest was preempted";
      ASSERT_TRUE(options_.fair || Advances(batch, oldest)) << "the oldest does not advance";
    }
    if (Draw(0, 49) == 0) {
      return;  // the step was lost: nothing is committed, it is planned again
    }
    now_ += absl::Milliseconds(Draw(1, 9));
    scheduler_->Commit(batch, model_.Run(batch), now_);
    CheckBlocks();
    for (const std::unique_ptr<Sequence>& sequence : scheduler_->TakeFinished()) {
      CheckFinished(*sequence);
    }
  }

  bool AnyUnblocked() const {
    const std::vector<Sequence*> all = scheduler_->sequences();
    return std::any_of(all.begin(), all.end(), [](const Sequence* s) { return !s->blocked(); });
  }

  /// The oldest sequence that has a place in the batch and is not blocked, or null.
  const Sequence* OldestActive() const {
    const std::vector<Sequence*> all = scheduler_->sequences();
    for (int64_t i = 0; i < scheduler_->num_running(); ++i) {
      if (!all[i]->blocked()) {
        return all[i];
      }
    }
    return nullptr;
  }

  static bool Advances(const Batch& batch, const Sequence* sequence) {
    return std::any_of(batch.rows.begin(), batch.rows.end(),
                       [&](const BatchRow& row) { return row.sequence == sequence; }) ||
           std::any_of(batch.contexts.begin(), batch.contexts.end(),
                       [&](const ContextRow& row) { return row.context == sequence->context(); });
  }

  void CheckBatch(const Batch& batch) {
    std::set<const Sequence*> seen;
    int64_t num_tokens = 0;
    ASSERT_LE(static_cast<int64_t>(batch.rows.size()), options_.max_sequences);
    for (const BatchRow& row : batch.rows) {
      ASSERT_TRUE(seen.insert(row.sequence).second);
      ASSERT_FALSE(row.sequence->blocked());
      ASSERT_GT(row.num_tokens, 0);
      ASSERT_EQ(row.first_token, row.sequence->num_computed_tokens());
      const int64_t end = row.first_token + row.num_tokens;
      ASSERT_EQ(row.samples, end == static_cast<int64_t>(row.sequence->tokens().size()));
      const std::vector<BlockId>& blocks = row.sequence->blocks();
      const int64_t before = row.sequence->num_context_slots();
      ASSERT_GE(static_cast<int64_t>(blocks.size()) * pool_.block_size(), before + end);
      for (int64_t slot = before + row.first_token; slot < before + end; ++slot) {
        const BlockId block = blocks[slot / pool_.block_size()];
        ASSERT_EQ(pool_.ref_count(block), 1) << "a row writes a shared block";
        ASSERT_FALSE(pool_.is_published(block)) << "a row writes a published block";
      }
      num_tokens += row.num_tokens;
    }
    ASSERT_EQ(batch.num_tokens, num_tokens);
    CheckContexts(batch);
    ASSERT_LE(num_tokens + batch.num_context_tokens, options_.max_batch_tokens);
    CheckSegments(batch);
  }

  /// Each context once, where it had ended; nobody runs without the whole of his own.
  void CheckContexts(const Batch& batch) {
    std::map<const Context*, int64_t> computed;
    int64_t num_tokens = 0;
    for (const ContextRow& row : batch.contexts) {
      ASSERT_EQ(row.user->context(), row.context);
      ASSERT_EQ(row.first_token, row.context->num_computed_tokens());
      ASSERT_GT(row.num_tokens, 0);
      ASSERT_TRUE(computed.emplace(row.context.get(), row.first_token + row.num_tokens).second);
      for (int64_t i = row.first_token; i < row.first_token + row.num_tokens; ++i) {
        const int64_t slot = row.context->first_slot() + i;
        ASSERT_FALSE(pool_.is_published(row.context->blocks()[slot / pool_.block_size()]));
      }
      num_tokens += row.num_tokens;
    }
    ASSERT_EQ(batch.num_context_tokens, num_tokens);
    num_context_tokens_ += num_tokens;
    for (const BatchRow& row : batch.rows) {
      const Context* context = row.sequence->context().get();
      ASSERT_EQ(context != nullptr, row.sequence->num_virtual_tokens() > 0);
      if (context != nullptr && !context->computed()) {
        ASSERT_EQ(computed[context], context->num_tokens());
      }
    }
  }

  static void CheckSegments(const Batch& batch) {
    int64_t row = 0, token = 0;
    std::string key;
    for (const BatchSegment& segment : batch.segments) {
      ASSERT_EQ(segment.row_begin, row);
      ASSERT_LT(segment.row_begin, segment.row_end);
      ASSERT_EQ(segment.token_begin, token);
      if (row > 0) {
        ASSERT_GT(segment.selection->key(), key);
      }
      key = segment.selection->key();
      for (; row < segment.row_end; ++row) {
        ASSERT_EQ(batch.rows[row].sequence->selection()->key(), key);
        token += batch.rows[row].num_tokens;
      }
      ASSERT_EQ(segment.token_end, token);
    }
    ASSERT_EQ(row, static_cast<int64_t>(batch.rows.size()));
  }

  /// Every reference is some sequence's, and a block with several holders is a context's or full
  /// and published.
  void CheckBlocks() {
    std::map<BlockId, int32_t> holders;
    std::set<BlockId> context_blocks;  // shared from the start, while they are being computed
    for (const Sequence* sequence : scheduler_->sequences()) {
      if (const Context* context = sequence->context().get(); context != nullptr) {
        context_blocks.insert(context->blocks().begin(), context->blocks().end());
      }
      const std::set<BlockId> distinct(sequence->blocks().begin(), sequence->blocks().end());
      ASSERT_EQ(distinct.size(), sequence->blocks().size());
      ASSERT_GE(static_cast<int64_t>(distinct.size()) * pool_.block_size(),
                sequence->num_context_slots() + sequence->num_computed_tokens());
      for (const BlockId block : sequence->blocks()) {
        ++holders[block];
      }
    }
    ASSERT_EQ(pool_.num_used(), static_cast<int64_t>(holders.size()));
    for (const auto& [block, count] : holders) {
      ASSERT_EQ(pool_.ref_count(block), count);
      ASSERT_TRUE(count == 1 || pool_.is_published(block) || context_blocks.contains(block));
    }
  }

  void CheckFinished(const Sequence& sequence) {
    ++num_finished_;
    num_cached_tokens_ += sequence.num_cached_tokens();
    ASSERT_TRUE(sequence.blocks().empty());
    std::vector<int32_t> expected(sequence.tokens().begin(),
                                  sequence.tokens().begin() + sequence.num_prompt_tokens());
    while (expected.size() < sequence.tokens().size()) {
      expected.push_back(model_.Solo(sequence, expected));
    }
    ASSERT_EQ(sequence.tokens(), expected) << "sequence " << sequence.id();
    const SequenceTimings& t = sequence.timings();
    ASSERT_LE(t.queue + t.adapter_wait + t.prefill + t.decode, now_ - sequence.arrival());
    const int64_t length = static_cast<int64_t>(sequence.tokens().size());
    const SamplingParams& sampling = sequence.sampling();
    const bool stopped = sequence.num_generated_tokens() > sampling.min_tokens &&
                         sequence.tokens().back() == sampling.stop_token_ids[0];
    switch (sequence.finish_reason()) {
      case FinishReason::kStopToken:
        ASSERT_TRUE(stopped);
        break;
      case FinishReason::kMaxTokens:
        ASSERT_FALSE(stopped);
        ASSERT_EQ(sequence.num_generated_tokens(), sampling.max_tokens);
        break;
      case FinishReason::kContextLength:
        ASSERT_FALSE(stopped);
        ASSERT_EQ(sequence.num_virtual_tokens() + length, options_.max_context_tokens);
        break;
      default:
        ASSERT_EQ(sequence.finish_reason(), FinishReason::kCancelled);
    }
  }

  std::mt19937_64 random_;
  BlockPool pool_;
  SchedulerOptions options_;
  HashModel model_;
  std::unique_ptr<Scheduler> scheduler_;
  std::vector<std::vector<int32_t>> prefixes_;
  std::vector<int64_t> kv_percent_{0, 0, 0};  // by tenant
  absl::Time now_ = absl::UnixEpoch();
  SequenceId next_id_ = 1;
  int64_t num_added_ = 0;
  int64_t num_finished_ = 0;
  int64_t num_cached_tokens_ = 0;
  int64_t num_context_tokens_ = 0;
};

TEST(SchedulerPropertyTest, EverySequenceGetsTheTokensItWouldGetAlone) {
  int64_t num_preemptions = 0, num_cached_tokens = 0, num_context_tokens = 0;
  for (uint64_t seed = 1; seed <= 120; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Traffic traffic(seed);
    for (int step = 0; step < 200; ++step) {
      ASSERT_NO_FATAL_FAILURE(traffic.Step()) << "step " << step;
    }
    ASSERT_NO_FATAL_FAILURE(traffic.Finish());
    num_preemptions += traffic.num_preemptions();
    num_cached_tokens += traffic.num_cached_tokens();
    num_context_tokens += traffic.num_context_tokens();
  }
  EXPECT_GT(num_preemptions, 500) << "the pools are too large to test anything";
  EXPECT_GT(num_cached_tokens, 100);
  EXPECT_GT(num_context_tokens, 1000);
}

}  // namespace
}  // namespace tenon
