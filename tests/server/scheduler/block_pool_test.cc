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

}  // namespace
}  // namespace tenon
