#include "server/scheduler/prefix_index.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

namespace tenon {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

class PrefixIndexTest : public ::testing::Test {
 protected:
  /// Computes and publishes all full blocks of `tokens`; returns their ids.
  std::vector<BlockId> PublishAll(const std::string& tenant, const std::string& selection,
                                  const std::vector<int32_t>& tokens) {
    std::vector<BlockId> blocks;
    const int64_t count = static_cast<int64_t>(tokens.size()) / pool_.block_size();
    EXPECT_TRUE(pool_.Allocate(count, blocks));
    PrefixChain chain = index_.Begin(tenant, selection);
    index_.Publish(chain, tokens, blocks, 0, count);
    return blocks;
  }
  std::vector<BlockId> Find(const std::string& tenant, const std::string& selection,
                            const std::vector<int32_t>& tokens) {
    std::vector<BlockId> blocks;
    PrefixChain chain = index_.Begin(tenant, selection);
    index_.Acquire(chain, tokens, static_cast<int64_t>(tokens.size()) / pool_.block_size(), blocks);
    return blocks;
  }

  BlockPool pool_{64, 2};
  PrefixIndex index_{"base", &pool_};
};

TEST_F(PrefixIndexTest, FindsTheLongestCommonRunOfFullBlocks) {
  const std::vector<BlockId> blocks = PublishAll("acme", "s", {1, 2, 3, 4, 5, 6, 7});
  EXPECT_THAT(Find("acme", "s", {1, 2, 3, 4, 9, 6}), ElementsAre(blocks[0], blocks[1]));
  EXPECT_THAT(Find("acme", "s", {1, 2, 3}), ElementsAre(blocks[0]));
}

TEST_F(PrefixIndexTest, SameBlockAfterAnotherPrefixIsNotFound) {
  PublishAll("acme", "s", {1, 2, 3, 4});
  EXPECT_THAT(Find("acme", "s", {3, 4}), IsEmpty());
  EXPECT_THAT(Find("acme", "s", {2, 1, 3, 4}), IsEmpty());
}

TEST_F(PrefixIndexTest, AcquireStopsAtTheGivenNumberOfBlocks) {
  PublishAll("acme", "s", {1, 2, 3, 4});
  std::vector<BlockId> blocks;
  PrefixChain chain = index_.Begin("acme", "s");
  index_.Acquire(chain, std::vector<int32_t>{1, 2, 3, 4}, 1, blocks);
  EXPECT_EQ(blocks.size(), 1u);
}

TEST_F(PrefixIndexTest, OtherTenantOrSelectionFindsNothing) {
  PublishAll("acme", "s", {1, 2});
  EXPECT_THAT(Find("bravo", "s", {1, 2}), IsEmpty());
  EXPECT_THAT(Find("acme", "t", {1, 2}), IsEmpty());
  EXPECT_THAT(Find("acme", "", {1, 2}), IsEmpty());
}

TEST_F(PrefixIndexTest, OtherBaseModelHasOtherRoots) {
  const PrefixIndex other("other base", &pool_);
  EXPECT_NE(index_.Begin("acme", "s").root, other.Begin("acme", "s").root);
}

// Parts are tagged with their length: moving bytes from one part to its neighbour is another root.
TEST_F(PrefixIndexTest, CraftedTuplesDoNotCollide) {
  const std::vector<std::string> parts = {
      "", "a", "aa", "b", "ab", "1:", "1:a", "0:", "0:1:", "4:base", ":", "a4:base"};
  std::set<BlockKey> roots;
  for (const std::string& tenant : parts) {
    for (const std::string& salt : parts) {
      const PrefixIndex index(salt, &pool_);
      for (const std::string& selection : parts) {
        roots.insert(index.Begin(tenant, selection).root);
      }
    }
  }
  EXPECT_EQ(roots.size(), parts.size() * parts.size() * parts.size());
}

TEST_F(PrefixIndexTest, ChainIsExtendedNotRecomputed) {
  std::vector<int32_t> tokens = {1, 2, 3, 4};
  std::vector<BlockId> blocks;
  ASSERT_TRUE(pool_.Allocate(3, blocks));
  PrefixChain chain = index_.Begin("acme", "s");
  index_.Publish(chain, tokens, blocks, 0, 2);
  tokens.insert(tokens.end(), {5, 6});
  index_.Publish(chain, tokens, blocks, 2, 3);
  EXPECT_EQ(chain.keys.size(), 3u);
  EXPECT_EQ(Find("acme", "s", tokens), blocks);
}

}  // namespace
}  // namespace tenon
