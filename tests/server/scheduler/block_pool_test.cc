#include "server/scheduler/block_pool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tenon {
namespace {

using ::testing::ElementsAre;
using ::testing::Optional;

TEST(BlockPoolTest, AllocateGivesDistinctBlocksWithOneReference) {
  BlockPool pool(4, 16);
  std::vector<BlockId> blocks;
  ASSERT_TRUE(pool.Allocate(3, blocks));
  EXPECT_THAT(blocks, ElementsAre(0, 1, 2));
  EXPECT_EQ(pool.ref_count(1), 1);
  EXPECT_EQ(pool.num_used(), 3);
  EXPECT_EQ(pool.num_available(), 1);
}

TEST(BlockPoolTest, AllocateIsAllOrNothing) {
  BlockPool pool(4, 16);
  std::vector<BlockId> blocks;
  EXPECT_FALSE(pool.Allocate(5, blocks));
  EXPECT_TRUE(blocks.empty());
  EXPECT_EQ(pool.num_available(), 4);
}

TEST(BlockPoolTest, ReleaseReturnsSharedBlockOnlyAtZero) {
  BlockPool pool(1, 16);
  std::vector<BlockId> blocks;
  ASSERT_TRUE(pool.Allocate(1, blocks));
  pool.Share(blocks[0]);
  pool.Release(blocks[0]);
  EXPECT_EQ(pool.num_available(), 0);
  pool.Release(blocks[0]);
  EXPECT_EQ(pool.num_available(), 1);
}

TEST(BlockPoolTest, PublishedBlockIsFoundAfterItsLastRelease) {
  BlockPool pool(2, 16);
  std::vector<BlockId> blocks;
  ASSERT_TRUE(pool.Allocate(1, blocks));
  pool.Publish(blocks[0], "a");
  pool.Release(blocks[0]);
  EXPECT_EQ(pool.num_cached(), 1);
  EXPECT_THAT(pool.Acquire("a"), Optional(blocks[0]));
  EXPECT_EQ(pool.num_cached(), 0);
  EXPECT_EQ(pool.ref_count(blocks[0]), 1);
  EXPECT_EQ(pool.Acquire("b"), std::nullopt);
}

TEST(BlockPoolTest, AcquireSharesABlockInUse) {
  BlockPool pool(2, 16);
  std::vector<BlockId> blocks;
  ASSERT_TRUE(pool.Allocate(1, blocks));
  pool.Publish(blocks[0], "a");
  ASSERT_TRUE(pool.Acquire("a").has_value());
  EXPECT_EQ(pool.ref_count(blocks[0]), 2);
  EXPECT_EQ(pool.num_used(), 1);
}

TEST(BlockPoolTest, EarlierBlockKeepsAKeyPublishedTwice) {
  BlockPool pool(2, 16);
  std::vector<BlockId> blocks;
  ASSERT_TRUE(pool.Allocate(2, blocks));
  pool.Publish(blocks[0], "a");
  pool.Publish(blocks[1], "a");
  EXPECT_FALSE(pool.is_published(blocks[1]));
  pool.Release(blocks[1]);
  EXPECT_EQ(pool.num_cached(), 0);
  EXPECT_THAT(pool.Acquire("a"), Optional(blocks[0]));
}

TEST(BlockPoolTest, FreeBlocksGoBeforeCachedOnes) {
  BlockPool pool(2, 16);
  std::vector<BlockId> blocks;
  ASSERT_TRUE(pool.Allocate(1, blocks));
  pool.Publish(blocks[0], "a");
  pool.Release(blocks[0]);
  std::vector<BlockId> others;
  ASSERT_TRUE(pool.Allocate(1, others));
  EXPECT_NE(others[0], blocks[0]);
  EXPECT_TRUE(pool.Acquire("a").has_value());
}

TEST(BlockPoolTest, LeastRecentlyUsedCachedBlockIsForgottenFirst) {
  BlockPool pool(2, 16);
  std::vector<BlockId> blocks;
  ASSERT_TRUE(pool.Allocate(2, blocks));
  pool.Publish(blocks[0], "a");
  pool.Publish(blocks[1], "b");
  pool.Release(blocks[0]);
  pool.Release(blocks[1]);
  pool.Release(*pool.Acquire("a"));  // "b" is now the one used longest ago
  std::vector<BlockId> others;
  ASSERT_TRUE(pool.Allocate(1, others));
  EXPECT_EQ(others[0], blocks[1]);
  EXPECT_EQ(pool.Acquire("b"), std::nullopt);
  EXPECT_TRUE(pool.Acquire("a").has_value());
}

TEST(BlockPoolTest, ReusedBlockIsNoLongerPublished) {
  BlockPool pool(1, 16);
  std::vector<BlockId> blocks;
  ASSERT_TRUE(pool.Allocate(1, blocks));
  pool.Publish(blocks[0], "a");
  pool.Release(blocks[0]);
  std::vector<BlockId> others;
  ASSERT_TRUE(pool.Allocate(1, others));
  EXPECT_FALSE(pool.is_published(others[0]));
  pool.Release(others[0]);
  EXPECT_EQ(pool.num_cached(), 0);
}

// Fills `count` blocks of an owner and leaves them cached.
void Cache(BlockPool& pool, int64_t count, const std::string& name, BlockOwner owner) {
  std::vector<BlockId> blocks;
  ASSERT_TRUE(pool.Allocate(count, blocks, owner));
  for (int64_t i = 0; i < count; ++i) {
    pool.Publish(blocks[i], name + std::to_string(i));
    pool.Release(blocks[i]);
  }
}

TEST(BlockPoolTest, FloodOfOneOwnerEvictsItsOwnBlocks) {
  BlockPool pool(100, 16);
  Cache(pool, 30, "quiet", 1);
  for (int round = 0; round < 20; ++round) {
    Cache(pool, 50, "flood" + std::to_string(round) + ".", 2);
  }
  EXPECT_EQ(pool.num_cached(1), 30) << "what somebody with less has cached stays";
  EXPECT_EQ(pool.num_cached(2), 70);
  for (int i = 0; i < 30; ++i) {
    EXPECT_TRUE(pool.Acquire("quiet" + std::to_string(i)).has_value()) << i;
  }
  EXPECT_EQ(pool.num_used(1), 30);
}

TEST(BlockPoolTest, OwnersThatBothFloodShareByWeight) {
  BlockPool pool(90, 16);
  pool.SetWeight(0, 2);
  for (int round = 0; round < 40; ++round) {
    Cache(pool, 10, "a" + std::to_string(round) + ".", 0);
    Cache(pool, 10, "b" + std::to_string(round) + ".", 1);
  }
  EXPECT_NEAR(static_cast<double>(pool.num_cached(0)), 60, 10);
  EXPECT_NEAR(static_cast<double>(pool.num_cached(1)), 30, 10);
}

TEST(BlockPoolTest, UsedBlocksAreCountedOnceForTheirOwner) {
  BlockPool pool(8, 16);
  std::vector<BlockId> blocks;
  ASSERT_TRUE(pool.Allocate(3, blocks, 5));
  pool.Share(blocks[0]);
  EXPECT_EQ(pool.num_used(5), 3);
  EXPECT_EQ(pool.num_used(4), 0);
  EXPECT_EQ(pool.num_used(99), 0);
  pool.Release(blocks[0]);
  EXPECT_EQ(pool.num_used(5), 3);
  pool.Release(blocks[0]);
  EXPECT_EQ(pool.num_used(5), 2);
}

TEST(BlockPoolTest, RecycledAreThoseThatNobodyMayReadAnyMore) {
  BlockPool pool(2, 16);
  std::vector<BlockId> blocks;
  ASSERT_TRUE(pool.Allocate(2, blocks));
  EXPECT_TRUE(pool.TakeRecycled().empty());
  pool.Publish(blocks[0], "key");
  pool.Release(blocks[0]);
  EXPECT_TRUE(pool.TakeRecycled().empty()) << "a cached block may be found again";
  pool.Release(blocks[1]);
  EXPECT_EQ(pool.TakeRecycled(), (std::vector<BlockId>{blocks[1]}));
  std::vector<BlockId> again;
  ASSERT_TRUE(pool.Allocate(2, again));
  EXPECT_EQ(pool.TakeRecycled(), (std::vector<BlockId>{blocks[0]})) << "evicted";
}

}  // namespace
}  // namespace tenon
