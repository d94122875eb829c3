#include "server/model/merge_choice.h"

#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "server/model/merged_weights.h"
#include "server/model/model.h"
#include "tests/source_dir.h"

namespace tenon {
namespace {

class MergeChoiceTest : public testing::Test {
 protected:
  void SetUp() override {
    ModelOptions options;
    options.dtype = at::kFloat;
    model_ = *LoadModel(SourcePath("tests/golden/data/matrix/llama/model"), options);
    CompiledAdapter adapter(model_.config.num_layers);
    SiteDelta site;
    site.low_rank = *LowRankDelta::Create(at::randn({2, model_.config.q_size()}),
                                          at::randn({model_.config.hidden_size, 2}), 0.1f);
    adapter.set_delta(0, Site::kO, std::move(site));
    const ResolvedAdapter resolved[] = {{&adapter, 1.0f}};
    merged_ = *MergedWeights::Merge(*model_.decoder, resolved, [] { return false; });
  }
  // The tokens of [begin, end) that stay merged in a step of `num_tokens`.
  int64_t Choose(int64_t begin, int64_t end, int64_t num_tokens, const MergeCosts& costs) const {
    std::vector<AdapterSegment> segments = {{begin, end, {}, merged_.get()}};
    const int64_t merged = ChooseMerged(costs, num_tokens, segments);
    EXPECT_EQ(segments[0].merged != nullptr, merged > 0);
    return merged;
  }

  Model model_;
  std::unique_ptr<const MergedWeights> merged_;
};

TEST_F(MergeChoiceTest, FactsAreThoseOfTheMatrixAndTheDelta) {
  const MergeFacts& facts = merged_->facts();
  const int64_t hidden = model_.config.hidden_size, q = model_.config.q_size();
  EXPECT_EQ(facts.num_linears, 1);
  EXPECT_EQ(facts.num_deltas, 1);
  EXPECT_EQ(facts.nbytes, model_.decoder->linear(0, LinearKind::kO).nbytes());
  EXPECT_EQ(facts.delta_macs, 2 * (hidden + q));
  EXPECT_EQ(merged_->Find(0, 0, LinearKind::kQkv), nullptr);
  EXPECT_EQ(merged_->Find(0, 1, LinearKind::kO), nullptr);
}

TEST_F(MergeChoiceTest, SegmentAloneIsAlwaysMerged) {
  MergeCosts costs;
  costs.delta_overhead_ns = -1e9;
  EXPECT_EQ(Choose(0, 1, 1, costs), 1);
  EXPECT_EQ(Choose(0, 1, 2, costs), 0);
}

TEST_F(MergeChoiceTest, BesideOthersItTakesEnoughRows) {
  MergeCosts costs;
  costs.delta_overhead_ns = 0;
  const MergeFacts& facts = merged_->facts();
  const double per_row = static_cast<double>(facts.delta_macs) / costs.macs_per_ns;
  const double extra = static_cast<double>(facts.nbytes - facts.delta_bytes) / costs.bytes_per_ns;
  const int64_t rows = static_cast<int64_t>(extra / per_row) + 1;
  EXPECT_EQ(Choose(3, 3 + rows, 3 + rows, costs), rows);
  EXPECT_EQ(Choose(3, 3 + rows - 2, 3 + rows - 2, costs), 0);
}

TEST_F(MergeChoiceTest, SegmentsWithoutMergedWeightsAreLeftAlone) {
  std::vector<AdapterSegment> segments = {{0, 4, {}, nullptr}};
  EXPECT_EQ(ChooseMerged({}, 4, segments), 0);
}

}  // namespace
}  // namespace tenon
