// The CUDA kernels of the base model against the reference; on the host, or on a GPU.
#include "server/kernels/cuda_ops.h"

#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>

#include <limits>
#include <numeric>
#include <vector>

#include "server/kernels/rope.h"
#include "tests/adapters/kernels/kernel_testing.h"
#include "tests/device/test_device.h"

namespace tenon {
namespace {

class CudaOpsTest : public testing::TestWithParam<at::ScalarType> {
 protected:
  at::Tensor Normal(at::IntArrayRef sizes) { return random_.Normal(sizes, GetParam()).to(device_); }
  at::Tensor Floats(at::IntArrayRef sizes) { return random_.Normal(sizes, at::kFloat).to(device_); }
  void ExpectNear(const at::Tensor& actual, const at::Tensor& expected) {
    EXPECT_LE(WorstError(actual.cpu(), expected.cpu()), RoundingError(GetParam()));
  }

  c10::InferenceMode mode_;
  at::Device device_ = KernelTestDevice().device;
  RandomTensors random_{11};
};

TEST_P(CudaOpsTest, NormsMatchTheReference) {
  for (const NormKind kind : {NormKind::kRms, NormKind::kRmsFromOne, NormKind::kLayer}) {
    for (const int64_t size : {7, 64, 700}) {
      const Norm norm = Norm::Make(kind, 1e-5f, Floats({size}),
                                   kind == NormKind::kLayer ? Floats({size}) : at::Tensor());
      const at::Tensor x = Normal({5, size}), residual = Normal({5, size});
      const at::Tensor y = at::empty_like(x), expected = at::empty_like(x);
      NormalizeCuda(x, norm, y);
      NormalizeReference(x, norm, expected);
      ExpectNear(y, expected);
      const at::Tensor expected_residual = residual.clone();
      AddNormalizeCuda(x, residual, norm, y);
      AddNormalizeReference(x, expected_residual, norm, expected);
      ExpectNear(y, expected);
      EXPECT_TRUE(SameBits(residual.cpu(), expected_residual.cpu()));
    }
  }
}

TEST_P(CudaOpsTest, HeadNormsWorkInPlaceOnSlices) {
  const at::Tensor fused = Normal({6, 5 * 16}), copy = fused.clone();
  const auto heads = [](const at::Tensor& x) { return x.narrow(1, 16, 48).view({6, 3, 16}); };
  const Norm norm = Norm::Make(NormKind::kRms, 1e-6f, Floats({16}), at::Tensor());
  NormalizeHeadsCuda(heads(fused), norm);
  NormalizeHeadsReference(heads(copy), norm);
  ExpectNear(fused, copy);
}

TEST_P(CudaOpsTest, GatesAndSoftCapsMatchTheReference) {
  for (const Activation activation : {Activation::kSilu, Activation::kGeluTanh}) {
    const at::Tensor x = Normal({4, 2 * 300}), y = Normal({4, 300});
    const at::Tensor expected = at::empty_like(y), activated = at::empty_like(y);
    GateReference(x, activation, expected);
    GateCuda(x, activation, y);
    ExpectNear(y, expected);
    ActivateReference(y, activation, expected);
    ActivateCuda(y, activation, activated);
    ExpectNear(activated, expected);
  }
  const at::Tensor logits = Floats({3, 777}), capped = logits.clone();
  SoftCapCuda(logits, 0.7f);
  SoftCapReference(capped, 0.7f);
  EXPECT_LE(WorstError(logits.cpu(), capped.cpu()), 5e-6);
}

struct AttentionShape {
  int64_t heads, kv_heads, head_dim, block_size;
};

class CudaAttentionTest : public CudaOpsTest {
 protected:
  // A cache full of NaN, as poisoned blocks are: nobody may see what was not written.
  void MakeCache(const AttentionShape& shape) {
    shape_ = {24, shape.block_size, shape.kv_heads, shape.head_dim};
    const auto options = at::TensorOptions(GetParam()).device(device_);
    k_cache_ = at::full(shape_.keys(), std::numeric_limits<double>::quiet_NaN(), options);
    v_cache_ = at::full(shape_.values(), std::numeric_limits<double>::quiet_NaN(), options);
    blocks_.resize(24);
    for (int32_t i = 0; i < 24; ++i) {
      blocks_[static_cast<size_t>(i)] = i * 7 % 24;
    }
  }

  // Stores positions [first, first + count) of the sequence with those blocks.
  void Write(std::span<const int32_t> blocks, int64_t first, int64_t count) {
    std::vector<int64_t> slots;
    for (int64_t p = first; p < first + count; ++p) {
      slots.push_back(blocks[p / shape_.block_size] * shape_.block_size + p % shape_.block_size);
    }
    AppendKvCuda(at::Tensor(), Normal({count, shape_.kv_heads, shape_.head_dim}),
                 Normal({count, shape_.kv_heads, shape_.head_dim}), nullptr,
                 at::tensor(slots, at::kLong).to(device_), k_cache_, v_cache_);
  }

  at::Tensor Attend(const at::Tensor& q, std::span<const AttentionRow> rows,
                    const AttentionScoring& scoring, int64_t tile_tokens = 0) {
    const at::Tensor out = at::zeros(q.sizes(), q.options());
    DeviceTables tables(device_);
    const AttentionTable table(rows, q.size(0), shape_.block_size, tile_tokens, tables);
    tables.Upload();
    PagedAttentionCuda(q, k_cache_, v_cache_, table, scoring, out);
    return out;
  }

  void ExpectReference(const AttentionShape& shape, const AttentionScoring& scoring) {
    MakeCache(shape);
    const std::span<const int32_t> all(blocks_);
    const int64_t block = shape.block_size;
    // A decode step at position 5 * block + 2; a prompt of 3; a chunk behind a context of 2 * block
    // whose first 3 positions hold nothing.
    const AttentionRow rows[] = {{0, 1, 5 * block + 2, all.subspan(0, 6), 0},
                                 {1, 3, 0, all.subspan(6, 1), 0},
                                 {5, 4, 2 * block, all.subspan(7, 3), 3}};
    Write(rows[0].blocks, 0, 5 * block + 3);
    Write(rows[1].blocks, 0, 3);
    Write(rows[2].blocks, 3, 2 * block + 1);
    const at::Tensor q = Normal({9, shape.heads, shape.head_dim});
    const at::Tensor out = Attend(q, rows, scoring);
    const at::Tensor expected = at::zeros(q.sizes(), q.options());
    PagedAttentionReference(q, k_cache_, v_cache_, rows, scoring, expected);
    ExpectNear(out, expected);
    // Token 4 has no row.
    const at::Tensor untouched = at::zeros({shape.heads, shape.head_dim}, GetParam());
    EXPECT_TRUE(SameBits(out.cpu().select(0, 4), untouched));
    // A decode step alone.
    const AttentionRow alone[] = {{0, 1, 5 * block + 2, all.subspan(0, 6), 0}};
    const at::Tensor first = Attend(q.narrow(0, 0, 1), alone, scoring);
    EXPECT_TRUE(SameBits(first.cpu(), out.cpu().narrow(0, 0, 1)));
  }

  // A prompt of several tiles, a decode step, a chunk behind a context whose first 3 positions hold
  // nothing, and a row that is too short for a tile.
  void ExpectTilesReference(const AttentionShape& shape, const AttentionScoring& scoring) {
    const int64_t tile = AttentionTileTokens(GetParam(), shape.head_dim, shape.block_size);
    if (GetParam() != at::kBFloat16) {
      EXPECT_EQ(tile, 0);
      return;
    }
    MakeCache(shape);
    const std::span<const int32_t> all(blocks_);
    const AttentionRow rows[] = {{0, 70, 0, all.subspan(0, 5), 0},
                                 {70, 1, 33, all.subspan(5, 3), 0},
                                 {71, 41, 37, all.subspan(8, 5), 3},
                                 {114, 7, 2, all.subspan(13, 1), 0}};
    for (const AttentionRow& row : rows) {
      Write(row.blocks, row.first_key, row.first_position + row.num_tokens - row.first_key);
    }
    const at::Tensor q = Normal({121, shape.heads, shape.head_dim});
    const at::Tensor out = Attend(q, rows, scoring, tile), expected = at::zeros_like(q);
    PagedAttentionReference(q, k_cache_, v_cache_, rows, scoring, expected);
    ExpectNear(out, expected);
    const at::Tensor untouched = at::zeros({2, shape.heads, shape.head_dim}, GetParam());
    EXPECT_TRUE(SameBits(out.cpu().narrow(0, 112, 2), untouched));
    // The chunk alone.
    AttentionRow alone = rows[2];
    alone.token_begin = 0;
    const at::Tensor second = Attend(q.narrow(0, 71, 41), {&alone, 1}, scoring, tile);
    EXPECT_TRUE(SameBits(second.cpu(), out.cpu().narrow(0, 71, 41)));
  }

  // What an append makes of q, k and v that lie side by side, and of the cache.
  void ExpectAppendReference(const AttentionShape& shape, int64_t tokens, bool with_rope) {
    MakeCache(shape);
    const int64_t heads = shape.heads + 2 * shape.kv_heads, dim = shape.head_dim;
    const at::Tensor qkv = Normal({tokens, heads * dim}), expected = qkv.clone();
    const auto part = [&](const at::Tensor& x, int64_t begin, int64_t count) {
      return x.narrow(1, begin * dim, count * dim).view({tokens, count, dim});
    };
    std::vector<int64_t> positions, slots;
    for (int64_t t = 0; t < tokens; ++t) {
      positions.push_back(random_.Between(0, 39));
      slots.push_back(blocks_[t] * shape.block_size + random_.Between(0, shape.block_size - 1));
    }
    const RopeRows rope = {Floats({40, dim / 2}), Floats({40, dim / 2}),
                           at::tensor(positions, at::kLong).to(device_)};
    const at::Tensor slot_tensor = at::tensor(slots, at::kLong).to(device_);
    const at::Tensor k_cache = k_cache_.zero_().clone(), v_cache = v_cache_.zero_().clone();
    const int64_t v_begin = shape.heads + shape.kv_heads;
    AppendKvCuda(part(qkv, 0, shape.heads), part(qkv, shape.heads, shape.kv_heads),
                 part(qkv, v_begin, shape.kv_heads), with_rope ? &rope : nullptr, slot_tensor,
                 k_cache_, v_cache_);
    const at::Tensor k = part(expected, shape.heads, shape.kv_heads).clone();
    if (with_rope) {
      ApplyRopeReference(part(expected, 0, shape.heads), rope.cos, rope.sin, rope.positions);
      ApplyRopeReference(k, rope.cos, rope.sin, rope.positions);
    }
    WriteKvReference(k, part(expected, v_begin, shape.kv_heads), slot_tensor, k_cache, v_cache);
    ExpectNear(qkv, expected);
    ExpectNear(k_cache_, k_cache);
    EXPECT_TRUE(SameBits(v_cache_.cpu(), v_cache.cpu()));
  }

  KvCacheShape shape_;
  at::Tensor k_cache_, v_cache_;
  std::vector<int32_t> blocks_;
};

TEST_P(CudaAttentionTest, GroupsAndSizesMatchTheReference) {
  for (const AttentionShape& shape : {AttentionShape{4, 4, 16, 16}, AttentionShape{6, 2, 64, 16},
                                      AttentionShape{4, 1, 20, 5}, AttentionShape{2, 1, 256, 32}}) {
    ExpectReference(shape, {.scale = 0.2f});
  }
}

TEST_P(CudaAttentionTest, AppendRotatesSlicesOfOneProductAndStoresThem) {
  for (const AttentionShape& shape : {AttentionShape{4, 4, 16, 16}, AttentionShape{6, 2, 64, 16},
                                      AttentionShape{3, 1, 2, 5}, AttentionShape{2, 1, 256, 32}}) {
    for (const int64_t tokens : {0, 1, 7}) {
      ExpectAppendReference(shape, tokens, /*with_rope=*/true);
      ExpectAppendReference(shape, tokens, /*with_rope=*/false);
    }
  }
}

TEST_P(CudaAttentionTest, AppendOfWhatDoesNotFitThrows) {
  MakeCache({4, 2, 16, 16});
  const at::Tensor q = Normal({3, 4, 16}), kv = Normal({3, 2, 16});
  const at::Tensor slots = at::tensor({0, 1, 2}, at::kLong).to(device_);
  const RopeRows narrow = {Floats({9, 4}), Floats({9, 4}), slots};
  EXPECT_THROW(AppendKvCuda(q, kv, kv, &narrow, slots, k_cache_, v_cache_), c10::Error);
  const RopeRows rope = {Floats({9, 8}), Floats({9, 8}), slots};
  EXPECT_THROW(AppendKvCuda(q.narrow(0, 0, 2), kv, kv, &rope, slots, k_cache_, v_cache_),
               c10::Error);
  EXPECT_THROW(AppendKvCuda(q, q, q, &rope, slots, k_cache_, v_cache_), c10::Error);
}

TEST_P(CudaAttentionTest, WindowsAndSoftCapsMatchTheReference) {
  ExpectReference({4, 2, 32, 16}, {.scale = 0.2f, .window = 37});
  ExpectReference({4, 2, 32, 16}, {.scale = 0.2f, .window = 1});
  ExpectReference({4, 2, 32, 16}, {.scale = 0.5f, .softcap = 2.0f});
}

TEST_P(CudaAttentionTest, RowsThatDoNotFitThrow) {
  const std::vector<int32_t> blocks = {0, 1};
  const AttentionRow far[] = {{0, 1, 40, blocks, 0}};
  DeviceTables tables(device_);
  EXPECT_THROW(AttentionTable(far, 1, 16, 0, tables), c10::Error);
  const AttentionRow outside[] = {{3, 2, 0, blocks, 0}};
  EXPECT_THROW(AttentionTable(outside, 4, 16, 0, tables), c10::Error);
}

TEST_P(CudaAttentionTest, TilesOfQueriesMatchTheReference) {
  for (const AttentionShape& shape :
       {AttentionShape{4, 2, 32, 16}, AttentionShape{2, 2, 64, 32}, AttentionShape{6, 2, 80, 16},
        AttentionShape{4, 1, 128, 16}, AttentionShape{2, 1, 256, 48}}) {
    ExpectTilesReference(shape, {.scale = 0.2f});
  }
  ExpectTilesReference({4, 2, 48, 16}, {.scale = 0.2f, .window = 37});
  ExpectTilesReference({4, 2, 32, 16}, {.scale = 0.2f, .window = 1});
  ExpectTilesReference({4, 2, 32, 16}, {.scale = 0.5f, .softcap = 2.0f});
}

TEST_P(CudaAttentionTest, TilesAreForShapesThatTensorCoresTake) {
  EXPECT_EQ(AttentionTileTokens(at::kBFloat16, 64, 16), 64);
  EXPECT_EQ(AttentionTileTokens(at::kBFloat16, 80, 32), 32);
  EXPECT_EQ(AttentionTileTokens(at::kBFloat16, 256, 16), 16);
  EXPECT_EQ(AttentionTileTokens(at::kBFloat16, 72, 16), 0);
  EXPECT_EQ(AttentionTileTokens(at::kBFloat16, 64, 8), 0);
  EXPECT_EQ(AttentionTileTokens(at::kBFloat16, 272, 16), 0);
  EXPECT_EQ(AttentionTileTokens(at::kFloat, 64, 16), 0);
}

INSTANTIATE_TEST_SUITE_P(Types, CudaOpsTest, testing::Values(at::kFloat, at::kBFloat16),
                         [](const auto& test) {
                           return test.param == at::kFloat ? "fp32" : "bf16";
                         });
INSTANTIATE_TEST_SUITE_P(Types, CudaAttentionTest, testing::Values(at::kFloat, at::kBFloat16),
                         [](const auto& test) {
                           return test.param == at::kFloat ? "fp32" : "bf16";
                         });

}  // namespace
}  // namespace tenon
