#include "server/model/tensor_parallel_runner.h"

#include <ATen/ops/rand.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "server/model/model.h"
#include "tests/golden/step_driver.h"
#include "tests/server/model/config_text.h"
#include "tests/server/model/model_folder.h"

namespace tenon {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kMaxPositions = 256;

absl::StatusOr<Model> Load(int64_t num_ranks) {
  const ModelFolder folder;
  folder.Write("config.json", SmallConfig().dump());
  folder.WriteSafetensors("model.safetensors", SmallWeights());
  ModelOptions options;
  options.num_ranks = num_ranks;
  return LoadModel(folder.path(), options);
}

std::unique_ptr<TensorParallelRunner> MakeRunner(const Model& model, const DriverOptions& options) {
  auto runner = TensorParallelRunner::Create(model.decoder, options.num_blocks, options.block_size,
                                             kMaxPositions);
  EXPECT_TRUE(runner.ok()) << runner.status();
  return runner.ok() ? *std::move(runner) : nullptr;
}

DriverRequest Request(const std::string& adapter) {
  DriverRequest request;
  request.adapter = adapter;
  request.prompt = {1, 2, 3, 4, 5};
  request.sampling.max_tokens = 6;
  request.sampling.temperature = 0;
  request.sampling.prompt_logprobs = 1;
  return request;
}

// An adapter of query deltas for two ranks; `bad_rank`'s reads more inputs than there are.
std::shared_ptr<const CompiledAdapter> MakeAdapter(const Model& model, int64_t bad_rank) {
  std::vector<std::shared_ptr<CompiledAdapter>> ranks;
  for (int64_t rank = 0; rank < 2; ++rank) {
    const int64_t inputs = model.config.hidden_size + (rank == bad_rank ? 1 : 0);
    SiteDelta delta;
    delta.low_rank = *LowRankDelta::Create(at::rand({2, inputs}),
                                           at::rand({model.config.q_size() / 2, 2}), 1.0f);
    ranks.push_back(std::make_shared<CompiledAdapter>(model.config.num_layers));
    ranks.back()->set_delta(0, Site::kQ, std::move(delta));
  }
  ranks[0]->set_other_ranks({ranks[1]});
  return ranks[0];
}

TEST(TensorParallelRunnerTest, RanksHavePartsOfTheWeightsAndOfTheCache) {
  const absl::StatusOr<Model> whole = Load(1), cut = Load(2);
  ASSERT_TRUE(cut.ok()) << cut.status();
  const ModelConfig& part = cut->decoder->OfRank(1).config();
  EXPECT_EQ(part.num_heads * 2, cut->config.num_heads);
  EXPECT_EQ(part.num_kv_heads * 2, cut->config.num_kv_heads);
  EXPECT_EQ(cut->decoder->num_parameters(), whole->decoder->num_parameters());
  EXPECT_EQ(cut->decoder->linear(0, LinearKind::kQkv).out_features() * 2,
            whole->decoder->linear(0, LinearKind::kQkv).out_features());
  EXPECT_EQ(cut->decoder->linear(0, LinearKind::kDown).in_features() * 2,
            whole->decoder->linear(0, LinearKind::kDown).in_features());
}

TEST(TensorParallelRunnerTest, OneRankIsTheDecoderRunnerToTheBit) {
  const absl::StatusOr<Model> model = Load(1);
  ASSERT_TRUE(model.ok()) << model.status();
  const DriverOptions options;
  const auto alone =
      DecoderRunner::Create(model->decoder, options.num_blocks, options.block_size, kMaxPositions);
  const auto expected = RunTogether(**alone, {}, {Request("")}, options);
  const auto actual = RunTogether(*MakeRunner(*model, options), {}, {Request("")}, options);
  ASSERT_TRUE(expected.ok() && actual.ok());
  EXPECT_EQ(actual->front().tokens(), expected->front().tokens());
  for (size_t i = 0; i < expected->front().prompt_logprobs.size(); ++i) {
    EXPECT_EQ(actual->front().prompt_logprobs[i].logprob,
              expected->front().prompt_logprobs[i].logprob);
  }
}

TEST(TensorParallelRunnerTest, TwoRanksScorePromptsAsOneDoes) {
  const DriverOptions options;
  std::vector<DriverResult> results;
  for (const int64_t num_ranks : {1, 2}) {
    const absl::StatusOr<Model> model = Load(num_ranks);
    ASSERT_TRUE(model.ok()) << model.status();
    auto result = RunTogether(*MakeRunner(*model, options), {}, {Request("")}, options);
    ASSERT_TRUE(result.ok()) << result.status();
    results.push_back(std::move(result->front()));
  }
  ASSERT_EQ(results[0].prompt_logprobs.size(), 4u);
  ASSERT_EQ(results[1].prompt_logprobs.size(), 4u);
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_NEAR(results[1].prompt_logprobs[i].logprob, results[0].prompt_logprobs[i].logprob, 1e-4);
  }
  EXPECT_EQ(results[0].tokens(), results[1].tokens());
}

class FailingRankTest : public testing::TestWithParam<int64_t> {};

// The other rank waits in a collective by then, which must not last; its error is a consequence.
TEST_P(FailingRankTest, FailsTheStepWithItsErrorAndTheNextOneRuns) {
  const absl::StatusOr<Model> model = Load(2);
  ASSERT_TRUE(model.ok()) << model.status();
  const DriverOptions options;
  const auto runner = MakeRunner(*model, options);
  const AdapterMap adapters = {{"good", MakeAdapter(*model, -1)},
                               {"bad", MakeAdapter(*model, GetParam())}};
  const auto before = RunTogether(*runner, adapters, {Request("good")}, options);
  ASSERT_TRUE(before.ok()) << before.status();
  for (int i = 0; i < 3; ++i) {
    const absl::Time begin = absl::Now();
    const absl::Status status = RunTogether(*runner, adapters, {Request("bad")}, options).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal) << status;
    EXPECT_THAT(status.message(),
                HasSubstr(absl::StrCat("tensor-parallel rank ", GetParam(), " of 2")));
    EXPECT_THAT(status.message(), HasSubstr("low rank"));
    EXPECT_LT(absl::Now() - begin, absl::Seconds(20));
    const auto after = RunTogether(*runner, adapters, {Request("good")}, options);
    ASSERT_TRUE(after.ok()) << after.status();
    EXPECT_EQ(after->front().tokens(), before->front().tokens());
  }
}

INSTANTIATE_TEST_SUITE_P(Ranks, FailingRankTest, testing::Values(0, 1));

TEST(TensorParallelRunnerTest, BatchesThatNoRankCanRunFailWithRankZerosError) {
  const absl::StatusOr<Model> model = Load(2);
  ASSERT_TRUE(model.ok()) << model.status();
  DriverOptions options;
  const auto runner = MakeRunner(*model, options);
  DriverRequest request = Request("");
  request.prompt = {1, 2, 30000};
  const absl::Status status = RunTogether(*runner, {}, {request}, options).status();
  EXPECT_THAT(status.message(), HasSubstr("tensor-parallel rank 0 of 2"));
  EXPECT_THAT(status.message(), HasSubstr("token 30000 of a vocabulary"));
}

TEST(TensorParallelRunnerTest, OtherDevicesThanTheCpuAreRefused) {
  const ModelFolder folder;
  folder.Write("config.json", SmallConfig().dump());
  ModelOptions options;
  options.num_ranks = 2;
  options.device = at::Device("cuda:0");
  options.kernels = KernelKind::kReference;
  const absl::Status status = LoadModel(folder.path(), options).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("tensor_parallel_size 2 on device cuda:0"));
}

}  // namespace
}  // namespace tenon
