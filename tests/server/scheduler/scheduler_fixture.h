// What the scheduler's tests share: sequences in one line, and a model that shows wrong KV.
#ifndef TENON_TESTS_SERVER_SCHEDULER_SCHEDULER_FIXTURE_H_
#define TENON_TESTS_SERVER_SCHEDULER_SCHEDULER_FIXTURE_H_

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/hash/hash.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "adapters/registry/adapter_selection.h"
#include "server/scheduler/batch.h"
#include "server/scheduler/block_pool.h"
#include "server/scheduler/scheduler.h"
#include "server/scheduler/sequence.h"

namespace tenon {

/// A selection of one adapter with that digest; the base for "".
inline std::shared_ptr<const AdapterSelection> SelectionOf(const std::string& digest,
                                                           int64_t num_virtual_tokens = 0) {
  if (digest.empty()) {
    return std::make_shared<AdapterSelection>();
  }
  AdapterInfo info;
  info.id = {"acme", absl::StrCat("adapter-", digest), 1};
  info.digest = digest;
  info.num_virtual_tokens = num_virtual_tokens;
  const AdapterHandle handle(std::make_shared<const AdapterInfo>(std::move(info)));
  return std::make_shared<AdapterSelection>(std::vector<WeightedAdapter>{{handle, 1.0f}});
}

/// Tokens first, first + 1, ...
inline std::vector<int32_t> Tokens(int64_t count, int32_t first = 1) {
  std::vector<int32_t> tokens(count);
  for (int64_t i = 0; i < count; ++i) {
    tokens[i] = first + static_cast<int32_t>(i);
  }
  return tokens;
}

inline Sequence::Options SequenceOptions(SequenceId id, std::vector<int32_t> prompt,
                                         int32_t max_tokens, const std::string& digest = "") {
  Sequence::Options options;
  options.id = id;
  options.request_id = absl::StrCat("r", id);
  options.tenant = "acme";
  options.selection = SelectionOf(digest);
  options.prompt = std::move(prompt);
  options.sampling.max_tokens = max_tokens;
  options.arrival = absl::UnixEpoch();
  return options;
}

/// A scheduler over a pool of blocks of four tokens, and steps whose tokens the test chooses.
class SchedulerFixture : public ::testing::Test {
 protected:
  static constexpr int64_t kBlockSize = 4;

  static absl::Time At(int64_t seconds) { return absl::UnixEpoch() + absl::Seconds(seconds); }
  static SchedulerOptions Options() {
    return {.max_batch_tokens = 16,
            .max_sequences = 4,
            .max_context_tokens = 64,
            .cache_salt = "base",
            .prefix_cache = true};
  }
  void Make(int64_t num_blocks, SchedulerOptions options = Options()) {
    pool_ = std::make_unique<BlockPool>(num_blocks, kBlockSize);
    scheduler_ = std::make_unique<Scheduler>(options, pool_.get());
  }
  Sequence* Add(Sequence::Options options) {
    auto sequence = std::make_unique<Sequence>(std::move(options));
    Sequence* added = sequence.get();
    scheduler_->Add(std::move(sequence));
    return added;
  }
  Sequence* Add(SequenceId id, std::vector<int32_t> prompt, int32_t max_tokens,
                const std::string& digest = "") {
    return Add(SequenceOptions(id, std::move(prompt), max_tokens, digest));
  }
  void Commit(const Batch& batch, int32_t token = 99, absl::Time now = At(0)) {
    std::vector<SampledToken> sampled;
    for (const BatchRow& row : batch.rows) {
      if (row.samples) {
        sampled.push_back({.token = token, .logprob = 0, .top_logprobs = {}});
      }
    }
    scheduler_->Commit(batch, sampled, now);
  }
  Batch Step(int32_t token = 99, absl::Time now = At(0)) {
    Batch batch = scheduler_->Schedule(now);
    Commit(batch, token, now);
    return batch;
  }
  static std::vector<SequenceId> Ids(const Batch& batch) {
    std::vector<SequenceId> ids;
    for (const BatchRow& row : batch.rows) {
      ids.push_back(row.sequence->id());
    }
    return ids;
  }

  std::unique_ptr<BlockPool> pool_;
  std::unique_ptr<Scheduler> scheduler_;
};

/// A model whose KV of a slot is a hash over the KV of the slot before, read through the block
/// table (virtual tokens included), and whose next token is read from the KV of the last one. A
/// block that is shared wrongly, overwritten or read before it was computed changes the tokens.
class HashModel {
 public:
  /// Tokens are in [0, vocab).
  HashModel(int64_t num_blocks, int64_t block_size, int32_t vocab)
      : block_size_(block_size), vocab_(vocab), kv_(num_blocks * block_size, 0) {}

  /// Computes contexts and rows in order; one token per row that samples.
  std::vector<SampledToken> Run(const Batch& batch) {
    for (const ContextRow& row : batch.contexts) {
      const Context& context = *row.context;
      for (int64_t i = row.first_token; i < row.first_token + row.num_tokens; ++i) {
        const int64_t slot = context.first_slot() + i;
        const uint64_t before = i == 0 ? Root(*row.user) : At(context.blocks(), slot - 1);
        At(context.blocks(), slot) = absl::HashOf(before, -1 - i);
      }
    }
    std::vector<SampledToken> sampled;
    for (const BatchRow& row : batch.rows) {
      const Sequence& sequence = *row.sequence;
      uint64_t kv = 0;
      for (int64_t i = row.first_token; i < row.first_token + row.num_tokens; ++i) {
        const int64_t slot = sequence.num_context_slots() + i;
        const uint64_t before = slot == 0 ? Root(sequence) : At(sequence.blocks(), slot - 1);
        kv = absl::HashOf(before, sequence.tokens()[i]);
        At(sequence.blocks(), slot) = kv;
      }
      if (row.samples) {
        sampled.push_back({.token = TokenOf(kv), .logprob = 0, .top_logprobs = {}});
      }
    }
    return sampled;
  }

  /// The token that follows `tokens` when nothing else is in the batch.
  int32_t Solo(const Sequence& sequence, const std::vector<int32_t>& tokens) const {
    uint64_t kv = Root(sequence);
    for (int64_t i = 0; i < sequence.num_virtual_tokens(); ++i) {
      kv = absl::HashOf(kv, -1 - i);
    }
    for (const int32_t token : tokens) {
      kv = absl::HashOf(kv, token);
    }
    return TokenOf(kv);
  }

 private:
  uint64_t& At(const std::vector<BlockId>& blocks, int64_t slot) {
    return kv_[blocks[slot / block_size_] * block_size_ + slot % block_size_];
  }
  static uint64_t Root(const Sequence& sequence) {
    return absl::HashOf(sequence.tenant(), sequence.selection()->key());
  }
  int32_t TokenOf(uint64_t kv) const { return static_cast<int32_t>((kv >> 8) % vocab_); }

  int64_t block_size_;
  int32_t vocab_;
  std::vector<uint64_t> kv_;
};

}  // namespace tenon

#endif  // TENON_TESTS_SERVER_SCHEDULER_SCHEDULER_FIXTURE_H_
