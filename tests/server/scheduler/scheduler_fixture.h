// What the scheduler's tests share: sequences in one line, and a model that shows wrong KV.
#ifndef TENON_TESTS_SERVER_SCHEDULER_SCHEDULER_FIXTURE_H_
#define TENON_TESTS_SERVER_SCHEDULER_SCHEDULER_FIXTURE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/hash/hash.h"
#include "absl/strings/str_cat.h"
#include "adapters/registry/adapter_selection.h"
#include "server/scheduler/batch.h"
#include "server/scheduler/sequence.h"

namespace tenon {

/// A selection of one adapter with that digest; the base for "".
inline std::shared_ptr<const AdapterSelection> SelectionOf(const std::string& digest) {
  if (digest.empty()) {
    return std::make_shared<AdapterSelection>();
  }
  AdapterInfo info;
  info.id = {"acme", absl::StrCat("adapter-", digest), 1};
  info.digest = digest;
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

/// A model whose KV of a position is a hash over the KV of the position before, read through the
/// block table, and whose next token is read from the KV of the last one. A block that is shared
/// wrongly, overwritten or read before it was computed changes the tokens.
class HashModel {
 public:
  /// Tokens are in [0, vocab).
  HashModel(int64_t num_blocks, int64_t block_size, int32_t vocab)
      : block_size_(block_size), vocab_(vocab), kv_(num_blocks * block_size, 0) {}

  /// Computes the rows in order; one token per row that samples.
  std::vector<SampledToken> Run(const Batch& batch) {
    std::vector<SampledToken> sampled;
    for (const BatchRow& row : batch.rows) {
      const Sequence& sequence = *row.sequence;
      uint64_t kv = 0;
      for (int64_t p = row.first_token; p < row.first_token + row.num_tokens; ++p) {
        const uint64_t before = p == 0 ? Root(sequence) : At(sequence, p - 1);
        kv = absl::HashOf(before, sequence.tokens()[p]);
        At(sequence, p) = kv;
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
    for (const int32_t token : tokens) {
      kv = absl::HashOf(kv, token);
    }
    return TokenOf(kv);
  }

 private:
  uint64_t& At(const Sequence& sequence, int64_t position) {
    return kv_[sequence.blocks()[position / block_size_] * block_size_ + position % block_size_];
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
