#include "server/model/kv_cache.h"

#include <ATen/ops/isnan.h>
#include <gtest/gtest.h>

#include <fstream>
#include <vector>

namespace tenon {
namespace {

ModelConfig Config(int64_t layers) {
  ModelConfig config;
  config.num_layers = layers;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.head_dim = 16;
  return config;
}

// Resident bytes of this process, from /proc/self/statm.
int64_t ResidentBytes() {
  int64_t total_pages = 0;
  int64_t resident_pages = 0;
  std::ifstream("/proc/self/statm") >> total_pages >> resident_pages;
  return resident_pages * 4096;
}

TEST(KvCacheTest, BytesPerBlockCountKeysAndValuesOfAllLayers) {
  EXPECT_EQ(KvCache::BytesPerBlock(Config(3), 16, at::kFloat), 3 * 2 * 16 * 2 * 16 * 4);
  EXPECT_EQ(KvCache::BytesPerBlock(Config(3), 16, at::kBFloat16), 3 * 2 * 16 * 2 * 16 * 2);
}

TEST(KvCacheTest, NumBlocksStaysWithinTheBudget) {
  const int64_t block = KvCache::BytesPerBlock(Config(2), 16, at::kFloat);
  EXPECT_EQ(KvCache::NumBlocks(Config(2), 16, at::kFloat, 10 * block), 10);
  EXPECT_EQ(KvCache::NumBlocks(Config(2), 16, at::kFloat, 10 * block - 1), 9);
  EXPECT_EQ(KvCache::NumBlocks(Config(2), 16, at::kFloat, block - 1), 0);
}

TEST(KvCacheTest, EveryLayerHasItsOwnZeroedBlocks) {
  absl::StatusOr<KvCache> cache = KvCache::Create(Config(2), 5, 16, at::kFloat);
  ASSERT_TRUE(cache.ok()) << cache.status();
  EXPECT_EQ(cache->num_blocks(), 5);
  EXPECT_EQ(cache->nbytes(), 5 * KvCache::BytesPerBlock(Config(2), 16, at::kFloat));
  cache->keys(0).mutable_data_ptr<float>()[7] = 1.0f;
  EXPECT_EQ(cache->keys(1).const_data_ptr<float>()[7], 0.0f);
  EXPECT_EQ(cache->values(0).const_data_ptr<float>()[7], 0.0f);
}

TEST(KvCacheTest, MemoryIsNotTouchedUpFront) {
  const int64_t before = ResidentBytes();
  const absl::StatusOr<KvCache> cache = KvCache::Create(Config(4), 16384, 16, at::kFloat);
  ASSERT_TRUE(cache.ok()) << cache.status();
  ASSERT_GE(cache->nbytes(), int64_t{256} << 20);
  EXPECT_LT(ResidentBytes() - before, int64_t{8} << 20);
}

TEST(KvCacheTest, ImpossibleSizesAreErrors) {
  EXPECT_EQ(KvCache::Create(Config(1), 0, 16, at::kFloat).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(KvCache::Create(Config(1), 1, -16, at::kFloat).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(KvCache::Create(Config(1), int64_t{1} << 40, 16, at::kFloat).status().code(),
            absl::StatusCode::kResourceExhausted);
}

TEST(KvCacheTest, PoisonIsInTheBlocksThatAreNamedAndInNoOther) {
  absl::StatusOr<KvCache> cache = KvCache::Create(Config(2), 5, 16, at::kBFloat16);
  ASSERT_TRUE(cache.ok()) << cache.status();
  cache->Poison(std::vector<int32_t>{1, 3});
  for (int64_t block = 0; block < 5; ++block) {
    for (int64_t layer = 0; layer < 2; ++layer) {
      const bool poisoned = block == 1 || block == 3;
      EXPECT_EQ(at::isnan(cache->keys(layer)[block]).all().item<bool>(), poisoned) << block;
      EXPECT_EQ(at::isnan(cache->values(layer)[block]).any().item<bool>(), poisoned) << block;
    }
  }
  cache->PoisonAll();
  EXPECT_TRUE(at::isnan(cache->keys(1)).all().item<bool>());
}

}  // namespace
}  // namespace tenon
