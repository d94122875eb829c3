#include "adapters/methods/adapter_cut.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/rand.h>
#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "adapters/methods/rank_share.h"

namespace tenon {
namespace {

// 3 ranks: 6 query heads, 3 KV heads of 4, an intermediate size that they cannot share evenly.
constexpr int64_t kRanks = 3, kHidden = 20, kQ = 24, kKv = 12, kInner = 25, kRank = 5;

BaseShape Base() {
  BaseShape base;
  base.num_layers = 2;
  base.num_kv_heads = 3;
  base.head_dim = 4;
  base.num_ranks = kRanks;
  return base;
}

SiteDelta Delta(int64_t in, int64_t out) {
  SiteDelta delta;
  delta.low_rank = *LowRankDelta::Create(at::rand({kRank, in}), at::rand({out, kRank}), 0.5f);
  delta.output_gain = at::rand({out});
  delta.offset = at::rand({out});
  return delta;
}

std::shared_ptr<const CompiledAdapter> Cut(int64_t layer, Site site, const SiteDelta& delta) {
  CompiledAdapter whole(Base().num_layers);
  whole.set_delta(layer, site, delta);
  return *CutAdapter(whole, Base());
}

at::Tensor LowRank(const LowRankDelta& delta, const at::Tensor& x) {
  const at::Tensor shrunk = delta.dense() ? x : at::linear(x, delta.DownMatrix());
  return at::linear(shrunk, delta.UpMatrix()) * delta.scaling;
}

TEST(AdapterCutTest, OutputsOfColumnParallelSitesStandSideBySide) {
  const at::Tensor x = at::rand({4, kHidden});
  const SiteDelta delta = Delta(kHidden, kInner);
  const auto cut = Cut(1, Site::kUp, delta);
  std::vector<at::Tensor> outputs, gains, offsets;
  for (int64_t rank = 0; rank < kRanks; ++rank) {
    const SiteDelta& part = *cut->OfRank(rank).delta(1, Site::kUp);
    EXPECT_EQ(part.low_rank.out_features(), ShareOf(kInner, rank, kRanks).count);
    outputs.push_back(LowRank(part.low_rank, x));
    gains.push_back(part.output_gain);
    offsets.push_back(part.offset);
  }
  EXPECT_TRUE(at::allclose(at::cat(outputs, 1), LowRank(delta.low_rank, x)));
  EXPECT_TRUE(at::equal(at::cat(gains), delta.output_gain));
  EXPECT_TRUE(at::equal(at::cat(offsets), delta.offset));
}

TEST(AdapterCutTest, FusedQueryKeyValueIsCutInEachOfTheThree) {
  const SiteDelta delta = Delta(kHidden, kQ + 2 * kKv);
  const auto cut = Cut(0, Site::kQkv, delta);
  const SiteDelta& part = *cut->OfRank(1).delta(0, Site::kQkv);
  EXPECT_TRUE(at::equal(part.offset,
                        at::cat({delta.offset.narrow(0, 8, 8), delta.offset.narrow(0, kQ + 4, 4),
                                 delta.offset.narrow(0, kQ + kKv + 4, 4)})));
}

TEST(AdapterCutTest, RowParallelSitesAddUp) {
  const at::Tensor x = at::rand({4, kInner});
  for (const bool dense : {false, true}) {
    SiteDelta delta = Delta(kInner, kHidden);
    delta.input_gain = at::rand({kInner});
    if (dense) {
      delta.low_rank = *LowRankDelta::CreateDense(at::rand({kHidden, kInner}), 0.5f);
    }
    const auto cut = Cut(0, Site::kDown, delta);
    at::Tensor sum;
    for (int64_t rank = 0; rank < kRanks; ++rank) {
      const RankShare inputs = ShareOf(kInner, rank, kRanks);
      const SiteDelta& part = *cut->OfRank(rank).delta(0, Site::kDown);
      const at::Tensor y = LowRank(part.low_rank, x.narrow(1, inputs.begin, inputs.count));
      sum = rank == 0 ? y : sum + y;
      EXPECT_TRUE(
          at::equal(part.input_gain, delta.input_gain.narrow(0, inputs.begin, inputs.count)));
      EXPECT_TRUE(at::equal(part.output_gain, delta.output_gain));
      EXPECT_EQ(part.offset.defined(), rank == 0);
    }
    EXPECT_TRUE(at::allclose(sum, LowRank(delta.low_rank, x)));
  }
}

TEST(AdapterCutTest, FewerKvHeadsThanRanksAreShared) {
  BaseShape base = Base();
  base.num_ranks = 6;
  CompiledAdapter whole(base.num_layers);
  whole.set_context({7, {}, at::rand({2, 7, 3, 4}), at::rand({2, 7, 3, 4})});
  const auto cut = *CutAdapter(whole, base);
  for (int64_t rank = 0; rank < 6; ++rank) {
    const AdapterContext& part = *cut->OfRank(rank).context();
    EXPECT_EQ(part.num_tokens, 7);
    EXPECT_TRUE(at::equal(part.keys, whole.context()->keys.narrow(2, rank / 2, 1)));
    EXPECT_TRUE(at::equal(part.values, whole.context()->values.narrow(2, rank / 2, 1)));
  }
}

TEST(AdapterCutTest, ResidentBytesAreThoseOfAllRanks) {
  const auto cut = Cut(0, Site::kQ, Delta(kHidden, kQ));
  int64_t bytes = 0;
  for (int64_t rank = 0; rank < kRanks; ++rank) {
    bytes += cut->OfRank(rank).delta(0, Site::kQ)->nbytes();
  }
  EXPECT_EQ(cut->resident_bytes(), bytes);
}

}  // namespace
}  // namespace tenon
