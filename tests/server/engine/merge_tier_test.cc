#include "server/engine/merge_tier.h"

#include <ATen/ops/randn.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "server/model/model.h"
#include "tests/source_dir.h"

namespace tenon {
namespace {

using ::testing::HasSubstr;

using Selection = std::shared_ptr<const AdapterSelection>;

Selection Select(const std::string& name, float weight = 1.0f) {
  AdapterInfo info;
  info.id = {"acme", name, 1};
  info.digest = name;
  return std::make_shared<const AdapterSelection>(std::vector<WeightedAdapter>{
      {AdapterHandle(std::make_shared<const AdapterInfo>(std::move(info))), weight}});
}

// Adapters named "none..." have nothing to merge, "bad..." cannot be loaded; all others change the
// same matrices.
class MergeTierTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    ModelOptions options;
    options.dtype = at::kFloat;
    model_ = new Model(*LoadModel(SourcePath("tests/golden/data/matrix/llama/model"), options));
  }
  static void TearDownTestSuite() {
    delete model_;
    model_ = nullptr;
  }

  static absl::StatusOr<std::shared_ptr<const CompiledAdapter>> Load(const AdapterInfo& info) {
    if (info.digest.starts_with("bad")) {
      return absl::DataLossError("does not match its digest");
    }
    auto adapter = std::make_shared<CompiledAdapter>(model_->config.num_layers);
    if (!info.digest.starts_with("none")) {
      const int64_t hidden = model_->config.hidden_size;
      SiteDelta site;
      site.low_rank = *LowRankDelta::Create(at::randn({2, model_->config.q_size()}),
                                            at::randn({hidden, 2}), 0.1f);
      adapter->set_delta(0, Site::kO, std::move(site));
    }
    return adapter;
  }
  static int64_t CopyBytes() { return model_->decoder->linear(0, LinearKind::kO).nbytes(); }

  void Make(int64_t budget_bytes) {
    MergeTier::Options options;
    options.budget_bytes = budget_bytes;
    tier_ = std::make_unique<MergeTier>(options, model_->decoder, &cache_);
  }
  absl::Status SetMode(const Selection& selection, MergeMode mode) {
    absl::Notification done;
    absl::Status outcome;
    tier_->SetMode(selection, mode, [&](absl::Status status) {
      outcome = std::move(status);
      done.Notify();
    });
    done.WaitForNotification();
    return outcome;
  }
  // A step in which each selection has that many tokens.
  static Batch Step(const std::vector<std::pair<Selection, int64_t>>& parts) {
    Batch batch;
    for (const auto& [selection, tokens] : parts) {
      BatchSegment segment;
      segment.token_begin = batch.num_tokens;
      segment.token_end = batch.num_tokens += tokens;
      segment.selection = selection;
      batch.segments.push_back(segment);
    }
    return batch;
  }
  // `seconds` of such steps, ten a second.
  void Run(const Batch& batch, int seconds) {
    for (int i = 0; i < seconds * 10; ++i) {
      now_ += absl::Milliseconds(100);
      tier_->Observe(batch, now_);
    }
  }
  void AwaitState(const Selection& selection, MergeState state) {
    const absl::Time give_up = absl::Now() + absl::Seconds(30);
    while (tier_->status(selection->key()).state != state && absl::Now() < give_up) {
      std::this_thread::yield();
    }
    EXPECT_EQ(tier_->status(selection->key()).state, state);
  }

  static Model* model_;
  absl::Time now_ = absl::UnixEpoch();
  AdapterCache cache_{int64_t{1} << 30, Load};
  std::unique_ptr<MergeTier> tier_;
};

Model* MergeTierTest::model_ = nullptr;

TEST_F(MergeTierTest, AlwaysLoadsAndMergesAndNeverDropsTheCopy) {
  Make(CopyBytes());
  const Selection fr = Select("fr");
  ASSERT_TRUE(SetMode(fr, MergeMode::kAlways).ok());
  ASSERT_EQ(tier_->merged()->count(fr->key()), 1u);
  const MergeStatus status = tier_->status(fr->key());
  EXPECT_EQ(status.mode, MergeMode::kAlways);
  EXPECT_EQ(status.nbytes, CopyBytes());
  EXPECT_EQ(tier_->stats().merged_bytes, CopyBytes());
  EXPECT_TRUE(SetMode(fr, MergeMode::kAlways).ok()) << "nothing to do";
  EXPECT_EQ(tier_->stats().merges, 1);
  ASSERT_TRUE(SetMode(fr, MergeMode::kNever).ok());
  EXPECT_TRUE(tier_->merged()->empty());
  EXPECT_EQ(tier_->stats().merged_bytes, 0);
  EXPECT_EQ(tier_->stats().unmerges, 1);
}

TEST_F(MergeTierTest, StepInProgressKeepsWhatIsUnmerged) {
  Make(CopyBytes());
  const Selection fr = Select("fr");
  ASSERT_TRUE(SetMode(fr, MergeMode::kAlways).ok());
  const std::shared_ptr<const MergedSet> step = tier_->merged();
  ASSERT_TRUE(SetMode(fr, MergeMode::kNever).ok());
  EXPECT_NE(step->at(fr->key())->Find(0, 0, LinearKind::kO), nullptr);
}

TEST_F(MergeTierTest, NextCopyWaitsForTheStepThatHoldsTheLast) {
  Make(CopyBytes());
  std::shared_ptr<const MergedSet> step;
  ASSERT_TRUE(SetMode(Select("one"), MergeMode::kAlways).ok());
  step = tier_->merged();
  ASSERT_TRUE(SetMode(Select("one"), MergeMode::kNever).ok());
  absl::Notification merged;
  tier_->SetMode(Select("two"), MergeMode::kAlways, [&](const absl::Status& status) {
    EXPECT_TRUE(status.ok()) << status;
    merged.Notify();
  });
  EXPECT_FALSE(merged.WaitForNotificationWithTimeout(absl::Milliseconds(50)));
  step.reset();
  merged.WaitForNotification();
}

TEST_F(MergeTierTest, WithoutRoomAnOverrideIsRefused) {
  Make(CopyBytes());
  ASSERT_TRUE(SetMode(Select("one"), MergeMode::kAlways).ok());
  const absl::Status refused = SetMode(Select("two"), MergeMode::kAlways);
  EXPECT_TRUE(absl::IsResourceExhausted(refused));
  EXPECT_THAT(std::string(refused.message()), HasSubstr("--merged-bytes is"));
  EXPECT_EQ(tier_->status(Select("two")->key()).mode, MergeMode::kAuto);
  EXPECT_EQ(tier_->stats().failed_merges, 1);
}

TEST_F(MergeTierTest, WhatCannotBeMergedOrLoadedSaysSo) {
  Make(int64_t{1} << 30);
  EXPECT_TRUE(absl::IsFailedPrecondition(SetMode(Select("none"), MergeMode::kAlways)));
  EXPECT_TRUE(absl::IsDataLoss(SetMode(Select("bad"), MergeMode::kAlways)));
  EXPECT_EQ(tier_->stats().num_merged, 0);
}

TEST_F(MergeTierTest, WeightsMakeAnotherSelection) {
  Make(int64_t{1} << 30);
  ASSERT_TRUE(SetMode(Select("fr", 0.5f), MergeMode::kAlways).ok());
  EXPECT_EQ(tier_->status(Select("fr")->key()).state, MergeState::kUnmerged);
}

TEST_F(MergeTierTest, ForgottenAdapterIsUnmergedWithItsOverride) {
  Make(int64_t{1} << 30);
  const Selection fr = Select("fr");
  ASSERT_TRUE(SetMode(fr, MergeMode::kAlways).ok());
  tier_->Forget("other");
  EXPECT_EQ(tier_->stats().num_merged, 1);
  tier_->Forget("fr");
  EXPECT_EQ(tier_->stats().num_merged, 0);
  EXPECT_EQ(tier_->status(fr->key()).mode, MergeMode::kAuto);
}

TEST_F(MergeTierTest, ForgottenAdapterTakesAlsoTheWordThatItIsNeverMerged) {
  Make(int64_t{1} << 30);
  const Selection fr = Select("fr");
  ASSERT_TRUE(SetMode(fr, MergeMode::kNever).ok());
  tier_->Forget("fr");
  EXPECT_EQ(tier_->status(fr->key()).mode, MergeMode::kAuto);
}

TEST_F(MergeTierTest, HotSelectionIsMergedAndColdOneUnmerged) {
  Make(CopyBytes());
  const Selection hot = Select("hot"), base = std::make_shared<const AdapterSelection>();
  Run(Step({{hot, 90}, {base, 10}}), 12);
  AwaitState(hot, MergeState::kMerged);
  Run(Step({{hot, 40}, {base, 60}}), 20);
  EXPECT_EQ(tier_->status(hot->key()).state, MergeState::kMerged) << "between the bounds";
  Run(Step({{hot, 10}, {base, 90}}), 20);
  EXPECT_EQ(tier_->status(hot->key()).state, MergeState::kUnmerged);
  EXPECT_EQ(tier_->stats().unmerges, 1);
}

TEST_F(MergeTierTest, NeverHoldsAgainstThePolicyAndAlwaysAgainstItsEnd) {
  Make(int64_t{1} << 30);
  const Selection hot = Select("hot"), base = std::make_shared<const AdapterSelection>();
  ASSERT_TRUE(SetMode(hot, MergeMode::kNever).ok());
  Run(Step({{hot, 90}, {base, 10}}), 20);
  EXPECT_EQ(tier_->status(hot->key()).state, MergeState::kUnmerged);
  ASSERT_TRUE(SetMode(hot, MergeMode::kAlways).ok());
  Run(Step({{base, 100}}), 20);
  EXPECT_EQ(tier_->status(hot->key()).state, MergeState::kMerged);
}

TEST_F(MergeTierTest, OverrideTakesRoomFromThePolicy) {
  Make(CopyBytes());
  const Selection hot = Select("hot");
  Run(Step({{hot, 100}}), 12);
  AwaitState(hot, MergeState::kMerged);
  ASSERT_TRUE(SetMode(Select("mine"), MergeMode::kAlways).ok());
  EXPECT_EQ(tier_->status(hot->key()).state, MergeState::kUnmerged);
  Run(Step({{hot, 100}}), 2);
  AwaitState(hot, MergeState::kUnmerged);
  EXPECT_EQ(tier_->status(Select("mine")->key()).state, MergeState::kMerged);
}

TEST_F(MergeTierTest, BudgetOfZeroMergesNothing) {
  Make(0);
  Run(Step({{Select("hot"), 100}}), 20);
  EXPECT_EQ(tier_->stats().failed_merges, 0) << "nothing was tried";
  EXPECT_TRUE(absl::IsResourceExhausted(SetMode(Select("hot"), MergeMode::kAlways)));
}

TEST_F(MergeTierTest, ModesFromManyThreadsEndInOneState) {
  Make(3 * CopyBytes());
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([this, t] {
      for (int i = 0; i < 30; ++i) {
        const Selection selection = Select(absl::StrCat("a", (i + t) % 5));
        SetMode(selection, i % 3 == 0 ? MergeMode::kNever : MergeMode::kAlways).IgnoreError();
        const std::shared_ptr<const MergedSet> step = tier_->merged();
        for (const auto& [key, weights] : *step) {
          EXPECT_NE(weights->Find(0, 0, LinearKind::kO), nullptr);
        }
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  for (int i = 0; i < 5; ++i) {
    EXPECT_TRUE(SetMode(Select(absl::StrCat("a", i)), MergeMode::kNever).ok());
  }
  const MergeTierStats stats = tier_->stats();
  EXPECT_EQ(stats.num_merged, 0);
  EXPECT_EQ(stats.merged_bytes, 0);
  EXPECT_EQ(stats.merges, stats.unmerges);
}

}  // namespace
}  // namespace tenon
