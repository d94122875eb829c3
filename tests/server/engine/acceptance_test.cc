#include "server/engine/acceptance.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "tests/server/engine/engine_fixture.h"
#include "tests/source_dir.h"

namespace tenon {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// The scripted model counts up: after 5 comes 6. What it says of prompts is a quarter nat a token.
class AcceptanceTest : public EngineTest {
 protected:
  static void SetUpTestSuite() {
    auto loaded = Tokenizer::Load(SourcePath("tests/golden/data/tiny-llama/model"));
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    tokenizer_ = loaded->release();
  }
  static void TearDownTestSuite() { delete std::exchange(tokenizer_, nullptr); }

  void SetUp() override {
    script_.edit = [this](const Batch& batch, StepOutput& output) {
      output.prompt_logprobs.resize(batch.rows.size());
      for (size_t i = 0; i < batch.rows.size(); ++i) {
        const Sequence& sequence = *batch.rows[i].sequence;
        if (sequence.sampling().prompt_logprobs.has_value() && batch.rows[i].samples) {
          for (int64_t t = 1; t < sequence.num_prompt_tokens(); ++t) {
            output.prompt_logprobs[i].push_back({sequence.tokens()[t], logprob_, {}});
          }
        }
      }
      return step_status_;
    };
    EngineTest::SetUp();
  }

  absl::StatusOr<std::shared_ptr<AcceptanceRun>> Begin(std::vector<AcceptanceProbe> probes) {
    return AcceptanceRun::Start({engine_.get(), tokenizer_, [this] { return clock_.Now(); }},
                                "acme", HandleOf("candidate"), std::move(probes),
                                [this] { done_.Notify(); });
  }
  // The report of a run that reaches its end.
  absl::StatusOr<AcceptanceReport> Run(std::vector<AcceptanceProbe> probes) {
    auto run = Begin(std::move(probes));
    EXPECT_TRUE(run.ok()) << run.status();
    EXPECT_TRUE(done_.WaitForNotificationWithTimeout(kPatience));
    return (*run)->Report();
  }

  static Tokenizer* tokenizer_;
  float logprob_ = -0.25f;  // set before the engine runs
  absl::Status step_status_;
  absl::Notification done_;
};

Tokenizer* AcceptanceTest::tokenizer_ = nullptr;

TEST_F(AcceptanceTest, AllThatIsExpectedComes) {
  const auto report = Run({{"forward pass", {1, 2, 3}, ExpectedFinite{}},
                           {"counts", {5}, ExpectedTokens{{6, 7, 8}}},
                           {"loss", {5}, ExpectedLoss{{6, 7}, 0.25}}});
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_TRUE(report->passed);
  ASSERT_EQ(report->results.size(), 3u);
  EXPECT_EQ(report->results[1].name, "counts");
  EXPECT_FALSE(report->results[1].loss.has_value());
  EXPECT_DOUBLE_EQ(*report->results[2].loss, 0.25);
}

TEST_F(AcceptanceTest, WrongTokenFailsAndIsNamed) {
  const auto report =
      Run({{"good", {5}, ExpectedTokens{{6}}}, {"bad", {5}, ExpectedTokens{{6, 7, 9, 10}}}});
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_FALSE(report->passed);
  EXPECT_TRUE(report->results[0].passed);
  EXPECT_FALSE(report->results[1].passed);
  EXPECT_EQ(report->results[1].details, "expected token 9 at position 2, got 8");
}

TEST_F(AcceptanceTest, LossOverItsBoundFails) {
  const auto report = Run({{"loss", {5}, ExpectedLoss{{6, 7}, 0.24}}});
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_FALSE(report->passed);
  EXPECT_DOUBLE_EQ(*report->results[0].loss, 0.25);
}

TEST_F(AcceptanceTest, LossThatIsNotANumberFails) {
  logprob_ = std::nanf("");
  const auto report = Run({{"loss", {5}, ExpectedLoss{{6}, 100}}});
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_FALSE(report->passed);
}

TEST_F(AcceptanceTest, ForwardPassWithoutFiniteNumbersFails) {
  logprob_ = -INFINITY;
  const auto report = Run({{"forward pass", {1, 2, 3}, ExpectedFinite{}}});
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_FALSE(report->passed);
  EXPECT_THAT(report->results[0].details, HasSubstr("-inf at position 1"));
}

TEST_F(AcceptanceTest, ErrorOfTheModelIsTheProbesFailure) {
  step_status_ = absl::InternalError("the model's logit of token 0 is nan");
  const auto report = Run({{"forward pass", {1}, ExpectedFinite{}}});
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_FALSE(report->passed);
  EXPECT_THAT(report->results[0].details, HasSubstr("token 0 is nan"));
}

TEST_F(AcceptanceTest, TextIsComparedFromItsFront) {
  const std::vector<int32_t> expected = {40, 41, 42};  // what the model says after 39
  const std::string text = *tokenizer_->Decode(expected, true);
  ASSERT_FALSE(text.empty());
  auto report = Run({{"text", {39}, ExpectedText{text, 5}},
                     {"other", {39}, ExpectedText{absl::StrCat(text, "??"), 5}}});
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_TRUE(report->results[0].passed) << report->results[0].details;
  EXPECT_FALSE(report->results[1].passed);
}

TEST_F(AcceptanceTest, RunsOnTheCandidate) {
  std::atomic<int> on_candidate = 0;
  script_.watch = [&](const Batch& batch, std::span<const ResolvedSelection>) {
    for (const BatchSegment& segment : batch.segments) {
      on_candidate += segment.selection->adapters()[0].adapter->digest == "candidate";
    }
  };
  ASSERT_TRUE(Run({{"forward pass", {1, 2}, ExpectedFinite{}}}).ok());
  EXPECT_EQ(on_candidate, 1);
}

TEST_F(AcceptanceTest, NothingIsKnownBeforeTheEnd) {
  script_.Hold();
  auto run = Begin({{"forward pass", {1, 2}, ExpectedFinite{}}});
  ASSERT_TRUE(run.ok());
  script_.AwaitStep(1);
  EXPECT_TRUE(absl::IsUnavailable((*run)->Report().status()));
  script_.AllowAll();
  EXPECT_TRUE(done_.WaitForNotificationWithTimeout(kPatience));
  EXPECT_TRUE((*run)->Report().ok());
}

TEST_F(AcceptanceTest, CancelledRunIsNoVerdict) {
  script_.Hold();
  auto run = Begin({{"counts", {5}, ExpectedTokens{std::vector<int32_t>(100, 6)}}});
  ASSERT_TRUE(run.ok());
  script_.AwaitStep(1);
  (*run)->Cancel();
  script_.AllowAll();
  ASSERT_TRUE(done_.WaitForNotificationWithTimeout(kPatience));
  EXPECT_TRUE(absl::IsCancelled((*run)->Report().status())) << (*run)->Report().status();
}

TEST_F(AcceptanceTest, RunWithoutRoomIsNoVerdictEither) {
  script_.Hold();
  auto run = Begin({{"counts", {5}, ExpectedTokens{std::vector<int32_t>(100, 6)}}});
  ASSERT_TRUE(run.ok());
  script_.AwaitStep(1);
  clock_.Advance(absl::Minutes(2));
  script_.AllowAll();
  ASSERT_TRUE(done_.WaitForNotificationWithTimeout(kPatience));
  EXPECT_TRUE(absl::IsDeadlineExceeded((*run)->Report().status())) << (*run)->Report().status();
}

TEST_F(AcceptanceTest, RunThatIsDroppedEndsItsProbes) {
  script_.Hold();
  auto run = Begin({{"counts", {5}, ExpectedTokens{std::vector<int32_t>(100, 6)}}});
  ASSERT_TRUE(run.ok());
  script_.AwaitStep(1);
  run->reset();
  script_.AllowAll();
  Reader reader;
  Submit(reader, {10}, 3);
  EXPECT_THAT(reader.ReadAll().tokens[0], ElementsAre(11, 12, 13));
  EXPECT_LT(script_.num_steps(), 50);
}

TEST_F(AcceptanceTest, StoppedEngineRefuses) {
  engine_->Stop();
  EXPECT_TRUE(absl::IsUnavailable(Begin({{"forward pass", {1}, ExpectedFinite{}}}).status()));
}

TEST(ForwardPassProbeTest, SpreadsOverTheVocabularyWithinTheRoom) {
  EXPECT_THAT(ForwardPassProbe(800, 100).prompt, ElementsAre(0, 100, 200, 300, 400, 500, 600, 700));
  EXPECT_EQ(ForwardPassProbe(800, 4).prompt.size(), 3u);
  EXPECT_EQ(ForwardPassProbe(2, 100).prompt.size(), 8u);
  EXPECT_THAT(ForwardPassProbe(800, 0).prompt, ElementsAre(0));
}

}  // namespace
}  // namespace tenon
