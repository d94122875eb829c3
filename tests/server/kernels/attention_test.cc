#include "server/kernels/attention.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "tests/adapters/kernels/kernel_testing.h"

namespace tenon {
namespace {

// One layer's cache, filled sequence by sequence with blocks in shuffled order.
class Cache {
 public:
  Cache(KvCacheShape shape, at::ScalarType dtype)
      : shape_(shape),
        k_(at::zeros(shape.keys(), at::TensorOptions().dtype(dtype))),
        v_(at::zeros(shape.values(), at::TensorOptions().dtype(dtype))) {
    for (int64_t i = 0; i < shape.num_blocks; ++i) {
      // 7 and the number of blocks have no common factor in these tests: a permutation.
      order_.push_back(static_cast<int32_t>(i * 7 % shape.num_blocks));
    }
  }

  /// Stores [T, kv_heads, head_dim] keys and values as a new sequence.
  std::vector<int32_t> Add(const at::Tensor& k, const at::Tensor& v) {
    const int64_t count = (k.size(0) + shape_.block_size - 1) / shape_.block_size;
    std::vector<int32_t> blocks(order_.begin() + next_, order_.begin() + next_ + count);
    next_ += count;
    Write(k, v, 0, blocks);
    return blocks;
  }
  void Write(const at::Tensor& k, const at::Tensor& v, int64_t first_position,
             const std::vector<int32_t>& blocks) {
    std::vector<int64_t> slots;
    for (int64_t p = first_position; p < first_position + k.size(0); ++p) {
      slots.push_back(blocks[p / shape_.block_size] * shape_.block_size + p % shape_.block_size);
    }
    WriteKv(k, v, at::tensor(slots), k_, v_);
  }
  const at::Tensor& k() const { return k_; }
  const at::Tensor& v() const { return v_; }

 private:
  KvCacheShape shape_;
  at::Tensor k_, v_;
  std::vector<int32_t> order_;
  int64_t next_ = 0;
};

struct Shape {
  int64_t heads, kv_heads, head_dim, block_size;
};

constexpr Shape kShapes[] = {{9, 3, 64, 16},   {12, 12, 64, 16}, {4, 4, 8, 16},  {8, 2, 80, 32},
                             {16, 1, 128, 16}, {2, 1, 36, 4},    {6, 2, 16, 20}, {3, 3, 1, 1}};

std::string Name(const Shape& shape, at::ScalarType dtype) {
  return testing::PrintToString(
             std::vector<int64_t>{shape.heads, shape.kv_heads, shape.head_dim, shape.block_size}) +
         (dtype == at::kFloat ? " fp32" : " bf16");
}

class AttentionTest : public testing::TestWithParam<CpuIsa> {
 protected:
  AttentionTest() : isa_(GetParam()) {}

  template <typename Check>
  void ForEachShape(Check check) {
    for (const Shape& shape : kShapes) {
      for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
        SCOPED_TRACE(Name(shape, dtype));
        check(shape, dtype);
      }
    }
  }

  ScopedCpuIsa isa_;
  RandomTensors random_{23};
};

// Queries of one sequence in chunks, all of its keys being in the cache.
at::Tensor Chunked(const Cache& cache, const at::Tensor& q, const std::vector<int32_t>& blocks,
                   int64_t chunk, const AttentionScoring& scoring = {0.2f}) {
  const at::Tensor out = at::empty_like(q);
  for (int64_t begin = 0; begin < q.size(0); begin += chunk) {
    const int64_t tokens = std::min(chunk, q.size(0) - begin);
    const AttentionRow row{0, tokens, begin, blocks};
    PagedAttention(q.narrow(0, begin, tokens), cache.k(), cache.v(), {&row, 1}, scoring,
                   out.narrow(0, begin, tokens));
  }
  return out;
}

TEST_P(AttentionTest, MatchesReferenceOnMixedBatch) {
  ForEachShape([&](const Shape& s, at::ScalarType dtype) {
    Cache cache({331, s.block_size, s.kv_heads, s.head_dim}, dtype);
    // A decode, a prefill from the start, an empty row, a chunk in the middle.
    const int64_t contexts[] = {97, 70, 3, 131}, tokens[] = {1, 70, 0, 45};
    std::vector<std::vector<int32_t>> blocks;
    std::vector<AttentionRow> rows;
    int64_t total = 0;
    for (int i = 0; i < 4; ++i) {
      blocks.push_back(cache.Add(random_.Normal({contexts[i], s.kv_heads, s.head_dim}, dtype),
                                 random_.Normal({contexts[i], s.kv_heads, s.head_dim}, dtype)));
      rows.push_back({total, tokens[i], contexts[i] - tokens[i], {}});
      total += tokens[i];
    }
    for (int i = 0; i < 4; ++i) {
      rows[i].blocks = blocks[i];
    }
    const at::Tensor q = random_.Normal({total, s.heads, s.head_dim}, dtype, 2.0f);
    const at::Tensor fast = at::empty_like(q), reference = at::empty_like(q);
    PagedAttention(q, cache.k(), cache.v(), rows, {0.2f}, fast);
    PagedAttentionReference(q, cache.k(), cache.v(), rows, {0.2f}, reference);
    EXPECT_LT(WorstError(fast, reference), 2 * RoundingError(dtype));
  });
}

TEST_P(AttentionTest, ChunkingOfPromptChangesNoBit) {
  ForEachShape([&](const Shape& s, at::ScalarType dtype) {
    constexpr int64_t kTokens = 150;
    Cache cache({331, s.block_size, s.kv_heads, s.head_dim}, dtype);
    const auto blocks = cache.Add(random_.Normal({kTokens, s.kv_heads, s.head_dim}, dtype),
                                  random_.Normal({kTokens, s.kv_heads, s.head_dim}, dtype));
    const at::Tensor q = random_.Normal({kTokens, s.heads, s.head_dim}, dtype);
    const at::Tensor whole = Chunked(cache, q, blocks, kTokens);
    for (const int64_t chunk : {1, 2, 7, 64}) {
      EXPECT_TRUE(SameBits(Chunked(cache, q, blocks, chunk), whole)) << "chunks of " << chunk;
    }
  });
}

// Windows and soft-caps of all sorts.
constexpr AttentionScoring kScorings[] = {{0.2f, 1, 0.0f},   {0.2f, 7, 0.0f},  {0.2f, 16, 3.0f},
                                          {0.2f, 64, 50.0f}, {0.2f, 65, 0.0f}, {0.2f, 1000, 0.0f},
                                          {0.2f, 0, 2.0f}};

std::string Name(const AttentionScoring& scoring) {
  return "window " + std::to_string(scoring.window) + " softcap " + std::to_string(scoring.softcap);
}

TEST_P(AttentionTest, WindowsSoftCapsAndPaddingMatchReference) {
  ForEachShape([&](const Shape& s, at::ScalarType dtype) {
    for (const AttentionScoring& scoring : kScorings) {
      SCOPED_TRACE(Name(scoring));
      Cache cache({431, s.block_size, s.kv_heads, s.head_dim}, dtype);
      const int64_t contexts[] = {197, 70, 131}, tokens[] = {1, 60, 45};
      std::vector<std::vector<int32_t>> blocks;
      std::vector<AttentionRow> rows;
      int64_t total = 0;
      for (int i = 0; i < 3; ++i) {
        blocks.push_back(cache.Add(random_.Normal({contexts[i], s.kv_heads, s.head_dim}, dtype),
                                   random_.Normal({contexts[i], s.kv_heads, s.head_dim}, dtype)));
        const int64_t first = contexts[i] - tokens[i];
        rows.push_back({total, tokens[i], first, {}, random_.Between(0, first)});
        total += tokens[i];
      }
      for (int i = 0; i < 3; ++i) {
        rows[i].blocks = blocks[i];
      }
      const at::Tensor q = random_.Normal({total, s.heads, s.head_dim}, dtype, 2.0f);
      const at::Tensor fast = at::empty_like(q), reference = at::empty_like(q);
      PagedAttention(q, cache.k(), cache.v(), rows, scoring, fast);
      PagedAttentionReference(q, cache.k(), cache.v(), rows, scoring, reference);
      EXPECT_LT(WorstError(fast, reference), 2 * RoundingError(dtype));
    }
  });
}

TEST_P(AttentionTest, ChunkingChangesNoBitUnderWindowsAndSoftCaps) {
  ForEachShape([&](const Shape& s, at::ScalarType dtype) {
    constexpr int64_t kTokens = 150;
    Cache cache({331, s.block_size, s.kv_heads, s.head_dim}, dtype);
    const auto blocks = cache.Add(random_.Normal({kTokens, s.kv_heads, s.head_dim}, dtype),
                                  random_.Normal({kTokens, s.kv_heads, s.head_dim}, dtype));
    const at::Tensor q = random_.Normal({kTokens, s.heads, s.head_dim}, dtype);
    for (const AttentionScoring& scoring : kScorings) {
      const at::Tensor whole = Chunked(cache, q, blocks, kTokens, scoring);
      for (const int64_t chunk : {1, 5, 64}) {
        EXPECT_TRUE(SameBits(Chunked(cache, q, blocks, chunk, scoring), whole))
            << Name(scoring) << " chunks of " << chunk;
      }
    }
  });
}

TEST_P(AttentionTest, WindowThatReachesTheStartIsNoWindow) {
  ForEachShape([&](const Shape& s, at::ScalarType dtype) {
    Cache cache({31, s.block_size, s.kv_heads, s.head_dim}, dtype);
    const auto blocks = cache.Add(random_.Normal({30, s.kv_heads, s.head_dim}, dtype),
                                  random_.Normal({30, s.kv_heads, s.head_dim}, dtype));
    const at::Tensor q = random_.Normal({30, s.heads, s.head_dim}, dtype);
    EXPECT_TRUE(SameBits(Chunked(cache, q, blocks, 30, {0.2f, 30}),
                         Chunked(cache, q, blocks, 30, {0.2f, 0})));
  });
}

TEST_P(AttentionTest, NeverLooksAtWhatLiesBeforeTheFirstKey) {
  constexpr int64_t kPadding = 13, kTokens = 9;
  ForEachShape([&](const Shape& s, at::ScalarType dtype) {
    const at::Tensor k = random_.Normal({kPadding + kTokens, s.kv_heads, s.head_dim}, dtype);
    const at::Tensor v = random_.Normal({kPadding + kTokens, s.kv_heads, s.head_dim}, dtype);
    const at::Tensor q = random_.Normal({kTokens, s.heads, s.head_dim}, dtype);
    at::Tensor results[3];
    for (int i = 0; i < 3; ++i) {
      if (i == 1) {
        k.narrow(0, 0, kPadding).fill_(std::numeric_limits<float>::quiet_NaN());
        v.narrow(0, 0, kPadding).fill_(std::numeric_limits<float>::quiet_NaN());
      }
      Cache cache({31, s.block_size, s.kv_heads, s.head_dim}, dtype);
      const auto blocks = cache.Add(k, v);
      const AttentionRow row{0, kTokens, kPadding, blocks, kPadding};
      results[i] = at::empty_like(q);
      (i == 2 ? PagedAttentionReference : PagedAttention)(q, cache.k(), cache.v(), {&row, 1},
                                                          {0.2f}, results[i]);
    }
    EXPECT_TRUE(SameBits(results[0], results[1]));
    EXPECT_LT(WorstError(results[1], results[2]), 2 * RoundingError(dtype));
  });
}

TEST_P(AttentionTest, NeighboursAndBlockNumbersChangeNoBit) {
  ForEachShape([&](const Shape& s, at::ScalarType dtype) {
    Cache cache({331, s.block_size, s.kv_heads, s.head_dim}, dtype);
    const at::Tensor k = random_.Normal({50, s.kv_heads, s.head_dim}, dtype);
    const at::Tensor v = random_.Normal({50, s.kv_heads, s.head_dim}, dtype);
    const at::Tensor q = random_.Normal({1, s.heads, s.head_dim}, dtype);
    const auto first = cache.Add(k, v), second = cache.Add(k, v);
    const at::Tensor alone = at::empty_like(q);
    const AttentionRow row{0, 1, 49, first};
    PagedAttention(q, cache.k(), cache.v(), {&row, 1}, {0.2f}, alone);

    const at::Tensor queries = random_.Normal({6, s.heads, s.head_dim}, dtype);
    queries.select(0, 4).copy_(q[0]);
    const at::Tensor out = at::empty_like(queries);
    const AttentionRow rows[] = {{0, 4, 20, first}, {4, 1, 49, second}, {5, 1, 12, first}};
    PagedAttention(queries, cache.k(), cache.v(), rows, {0.2f}, out);
    EXPECT_TRUE(SameBits(out.narrow(0, 4, 1), alone));
  });
}

TEST_P(AttentionTest, NeverLooksBehindTheToken) {
  // Another tenant's leftovers in a reused block, and the cache's padding, may hold anything.
  ForEachShape([&](const Shape& s, at::ScalarType dtype) {
    const at::Tensor k = random_.Normal({21, s.kv_heads, s.head_dim}, dtype);
    const at::Tensor v = random_.Normal({21, s.kv_heads, s.head_dim}, dtype);
    const at::Tensor q = random_.Normal({3, s.heads, s.head_dim}, dtype);
    at::Tensor results[2];
    for (int i = 0; i < 2; ++i) {
      Cache cache({31, s.block_size, s.kv_heads, s.head_dim}, dtype);
      if (i == 1) {
        cache.k().fill_(std::numeric_limits<float>::quiet_NaN());
        cache.v().fill_(std::numeric_limits<float>::quiet_NaN());
      }
      const auto blocks = cache.Add(k, v);
      const AttentionRow row{0, 3, 18, blocks};
      results[i] = at::empty_like(q);
      PagedAttention(q, cache.k(), cache.v(), {&row, 1}, {0.2f}, results[i]);
    }
    EXPECT_TRUE(SameBits(results[0], results[1]));
  });
}

TEST_P(AttentionTest, HugeScoresDoNotOverflow) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    Cache cache({31, 16, 1, 16}, dtype);
    const at::Tensor k = random_.Normal({100, 1, 16}, dtype, 1000.0f);
    const auto blocks = cache.Add(k, random_.Normal({100, 1, 16}, dtype));
    const at::Tensor q = random_.Normal({100, 2, 16}, dtype, 1000.0f);
    const at::Tensor fast = at::empty_like(q), reference = at::empty_like(q);
    const AttentionRow row{0, 100, 0, blocks};
    PagedAttention(q, cache.k(), cache.v(), {&row, 1}, {1.0f}, fast);
    PagedAttentionReference(q, cache.k(), cache.v(), {&row, 1}, {1.0f}, reference);
    EXPECT_LT(WorstError(fast, reference), 2 * RoundingError(dtype));
  }
}

TEST_P(AttentionTest, ReadsSlicesOfFusedProjectionAndLeavesOtherTokensAlone) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const at::Tensor fused = random_.Normal({6, (4 + 2 + 2) * 24}, dtype);
    const at::Tensor q = fused.narrow(1, 0, 96).view({6, 4, 24});
    const at::Tensor k = fused.narrow(1, 96, 48).view({6, 2, 24});
    const at::Tensor v = fused.narrow(1, 144, 48).view({6, 2, 24});
    Cache cache({7, 16, 2, 24}, dtype), plain({7, 16, 2, 24}, dtype);
    const auto blocks = cache.Add(k, v);
    plain.Add(k.contiguous(), v.contiguous());
    EXPECT_TRUE(SameBits(cache.k(), plain.k()));
    EXPECT_TRUE(SameBits(cache.v(), plain.v()));

    const at::Tensor out = at::full({6, 4, 24}, 3.0, at::TensorOptions().dtype(dtype));
    const at::Tensor dense = at::empty_like(out);
    const AttentionRow part{2, 3, 1, blocks};
    PagedAttention(q, cache.k(), cache.v(), {&part, 1}, {0.2f}, out);
    PagedAttention(q.contiguous(), cache.k(), cache.v(), {&part, 1}, {0.2f}, dense);
    EXPECT_TRUE(SameBits(out.narrow(0, 2, 3), dense.narrow(0, 2, 3)));
    for (const int64_t t : {0, 1, 5}) {
      EXPECT_TRUE(SameBits(out[t], at::full({4, 24}, 3.0, out.options()))) << "token " << t;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, AttentionTest, testing::ValuesIn(HostIsas()),
                         [](const auto& test) { return IsaName(test.param); });

TEST(WriteKvTest, MatchesReference) {
  RandomTensors random(5);
  for (const Shape& s : kShapes) {
    for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
      const KvCacheShape shape{11, s.block_size, s.kv_heads, s.head_dim};
      const auto options = at::TensorOptions().dtype(dtype);
      const at::Tensor k = random.Normal({5, s.kv_heads, s.head_dim}, dtype);
      const at::Tensor v = random.Normal({5, s.kv_heads, s.head_dim}, dtype);
      const int64_t last = 11 * s.block_size - 1;
      const at::Tensor slots = at::tensor(std::vector<int64_t>{3, last, 0, last - 3, 5});
      const at::Tensor fast_k = at::zeros(shape.keys(), options);
      const at::Tensor fast_v = at::zeros(shape.values(), options);
      const at::Tensor want_k = at::zeros(shape.keys(), options);
      const at::Tensor want_v = at::zeros(shape.values(), options);
      WriteKv(k, v, slots, fast_k, fast_v);
      WriteKvReference(k, v, slots, want_k, want_v);
      EXPECT_TRUE(SameBits(fast_k, want_k)) << Name(s, dtype);
      EXPECT_TRUE(SameBits(fast_v, want_v)) << Name(s, dtype);
    }
  }
}

// The reference itself, against the definition.
TEST(PagedAttentionReferenceTest, IsCausalSoftmaxAttention) {
  Cache cache({5, 4, 1, 2}, at::kFloat);
  const std::vector<float> keys = {1, 0, 0, 1, 1, 1, -1, 2, 0.5f, 0};
  const std::vector<float> values = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
  const auto blocks =
      cache.Add(at::tensor(keys).view({5, 1, 2}), at::tensor(values).view({5, 1, 2}));
  const at::Tensor q = at::tensor(std::vector<float>{0.3f, -0.7f}).view({1, 1, 2});
  const at::Tensor out = at::empty_like(q);
  const AttentionRow row{0, 1, 3, blocks};  // sees four of the five
  PagedAttentionReference(q, cache.k(), cache.v(), {&row, 1}, {2.0f}, out);
  double sum = 0, expected[2] = {0, 0};
  for (int j = 0; j < 4; ++j) {
    const double weight = std::exp(2.0 * (0.3 * keys[2 * j] - 0.7 * keys[2 * j + 1]));
    sum += weight;
    expected[0] += weight * values[2 * j];
    expected[1] += weight * values[2 * j + 1];
  }
  EXPECT_NEAR(out[0][0][0].item().toDouble(), expected[0] / sum, 1e-5);
  EXPECT_NEAR(out[0][0][1].item().toDouble(), expected[1] / sum, 1e-5);
}

TEST(PagedAttentionReferenceTest, CapsScoresAndForgetsWhatLeftTheWindow) {
  Cache cache({5, 4, 1, 1}, at::kFloat);
  const auto blocks = cache.Add(at::tensor(std::vector<float>{9, 2, -3}).view({3, 1, 1}),
                                at::tensor(std::vector<float>{7, 5, 11}).view({3, 1, 1}));
  const at::Tensor q = at::full({1, 1, 1}, 1.5f), out = at::empty_like(q);
  const AttentionRow row{0, 1, 2, blocks};
  PagedAttentionReference(q, cache.k(), cache.v(), {&row, 1}, {2.0f, 2, 4.0f}, out);
  const double second = std::exp(4 * std::tanh(2.0 * 1.5 * 2 / 4));
  const double third = std::exp(4 * std::tanh(2.0 * 1.5 * -3 / 4));
  EXPECT_NEAR(out.item().toDouble(), (second * 5 + third * 11) / (second + third), 1e-5);
}

TEST(PagedAttentionTest, ThrowsOnWhatWouldReadOutOfBounds) {
  Cache cache({5, 16, 1, 8}, at::kFloat);
  const at::Tensor q = at::zeros({2, 2, 8}), out = at::zeros({2, 2, 8});
  const std::vector<int32_t> one = {1}, beyond = {5}, negative = {-1};
  const auto run = [&](AttentionRow row) {
    PagedAttention(q, cache.k(), cache.v(), {&row, 1}, {1.0f}, out);
  };
  EXPECT_NO_THROW(run({0, 2, 14, one}));
  EXPECT_THROW(run({0, 2, 15, one}), c10::Error);  // position 16 is in a second block
  EXPECT_THROW(run({1, 2, 0, one}), c10::Error);
  EXPECT_NO_THROW(run({0, 2, 14, one, 14}));
  EXPECT_THROW(run({0, 2, 14, one, 15}), c10::Error);  // position 14 would see nothing
  EXPECT_THROW(run({0, 2, 14, one, -1}), c10::Error);
  EXPECT_THROW(run({0, 2, 0, beyond}), c10::Error);
  EXPECT_THROW(run({0, 2, 0, negative}), c10::Error);
  const at::Tensor kv = at::zeros({1, 1, 8});
  EXPECT_THROW(WriteKv(kv, kv, at::tensor(std::vector<int64_t>{80}), cache.k(), cache.v()),
               c10::Error);
  EXPECT_THROW(WriteKv(kv, kv, at::tensor(std::vector<int64_t>{-1}), cache.k(), cache.v()),
               c10::Error);
}

}  // namespace
}  // namespace tenon
