#include "server/model/decoder_runner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "server/model/model.h"
#include "tests/golden/step_driver.h"
#include "tests/server/model/config_text.h"
#include "tests/server/model/model_folder.h"

namespace tenon {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kMaxPositions = 256;

std::unique_ptr<DecoderRunner> MakeRunner(const FloatTensors& tensors,
                                          const DriverOptions& options) {
  const ModelFolder folder;
  folder.Write("config.json", SmallConfig().dump());
  folder.WriteSafetensors("model.safetensors", tensors);
  absl::StatusOr<Model> model = LoadModel(folder.path(), {});
  EXPECT_TRUE(model.ok()) << model.status();
  absl::StatusOr<std::unique_ptr<DecoderRunner>> runner =
      DecoderRunner::Create(model->decoder, options.num_blocks, options.block_size, kMaxPositions);
  EXPECT_TRUE(runner.ok()) << runner.status();
  (*runner)->set_poison_freed_blocks(true);
  return *std::move(runner);
}

DriverRequest Request(std::vector<int32_t> prompt, int32_t max_tokens) {
  DriverRequest request;
  request.prompt = std::move(prompt);
  request.sampling.max_tokens = max_tokens;
  request.sampling.temperature = 0;
  return request;
}

std::vector<DriverResult> Generate(DecoderRunner& runner,
                                   const std::vector<DriverRequest>& requests,
                                   const DriverOptions& options) {
  absl::StatusOr<std::vector<DriverResult>> results = RunTogether(runner, {}, requests, options);
  EXPECT_TRUE(results.ok()) << results.status();
  return results.ok() ? *std::move(results) : std::vector<DriverResult>(requests.size());
}

// A batch of one row that runs all tokens of `sequence`.
Batch OneRow(const Sequence& sequence) {
  Batch batch;
  const int64_t tokens = static_cast<int64_t>(sequence.tokens().size());
  batch.rows.push_back({&sequence, 0, tokens, true});
  batch.segments.push_back({0, 1, 0, tokens, sequence.selection()});
  batch.num_tokens = tokens;
  return batch;
}

TEST(DecoderRunnerTest, SampledTokensDoNotDependOnTheBatch) {
  const DriverOptions options;
  const std::unique_ptr<DecoderRunner> runner = MakeRunner(SmallWeights(), options);
  std::vector<DriverRequest> requests;
  for (int32_t i = 0; i < 12; ++i) {
    DriverRequest request = Request(std::vector<int32_t>(1 + 3 * i, 5 + i), 20);
    request.sampling.temperature = 1.5f;
    request.sampling.top_p = 0.95f;
    request.sampling.seed = static_cast<uint64_t>(i % 3);
    requests.push_back(std::move(request));
  }
  const std::vector<DriverResult> together = Generate(*runner, requests, options);
  for (size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(Generate(*runner, {requests[i]}, options)[0].tokens(), together[i].tokens()) << i;
  }
}

TEST(DecoderRunnerTest, PreemptionChangesNoSampledToken) {
  const DriverOptions plenty;
  DriverOptions scarce;
  scarce.num_blocks = 8;  // four sequences of 4 blocks each
  const std::unique_ptr<DecoderRunner> runner = MakeRunner(SmallWeights(), plenty);
  std::vector<DriverRequest> requests;
  for (int32_t i = 0; i < 4; ++i) {
    DriverRequest request = Request(std::vector<int32_t>(20, 3 + i), 40);
    request.sampling.temperature = 1.0f;
    request.sampling.seed = 77;
    requests.push_back(std::move(request));
  }
  const std::vector<DriverResult> expected = Generate(*runner, requests, plenty);
  const std::vector<DriverResult> preempted = Generate(*runner, requests, scarce);
  for (size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ(preempted[i].tokens(), expected[i].tokens()) << i;
  }
}

TEST(DecoderRunnerTest, PromptLogprobsEqualThoseOfGeneration) {
  const DriverOptions options;
  const std::unique_ptr<DecoderRunner> runner = MakeRunner(SmallWeights(), options);
  DriverRequest generate = Request({1, 4, 9}, 40);
  generate.sampling.logprobs = 1;
  const DriverResult generated = Generate(*runner, {generate}, options)[0];

  // The same text as a prompt, whole and in chunks: entry 2 belongs to the first generated token.
  DriverRequest score = Request({1, 4, 9}, 1);
  for (const SampledToken& step : generated.steps) {
    score.prompt.push_back(step.token);
  }
  score.sampling.prompt_logprobs = 1;
  for (const int64_t max_batch_tokens : {512, 70}) {
    DriverOptions chunked = options;
    chunked.max_batch_tokens = max_batch_tokens;
    const DriverResult scored = Generate(*runner, {score, score}, chunked)[1];
    ASSERT_EQ(scored.prompt_logprobs.size(), score.prompt.size() - 1);
    for (size_t i = 0; i < generated.steps.size(); ++i) {
      EXPECT_EQ(scored.prompt_logprobs[i + 2].token, generated.steps[i].token);
      EXPECT_EQ(scored.prompt_logprobs[i + 2].logprob, generated.steps[i].logprob);
      EXPECT_EQ(scored.prompt_logprobs[i + 2].top_logprobs.size(), 1u);
    }
  }
}

TEST(DecoderRunnerTest, NanLogitsFailTheirRowOnly) {
  const DriverOptions options;
  FloatTensors tensors = SmallWeights();
  // The embedding of token 7 is damaged: whoever has it in the text gets NaN from there on.
  std::fill_n(tensors["model.embed_tokens.weight"].values.begin() + 7 * 16, 16, std::nanf(""));
  const std::unique_ptr<DecoderRunner> runner = MakeRunner(tensors, options);
  BlockPool pool(options.num_blocks, options.block_size);
  SchedulerOptions scheduler_options;
  scheduler_options.max_context_tokens = kMaxPositions;
  Scheduler scheduler(scheduler_options, &pool);
  for (SequenceId id = 0; id < 3; ++id) {
    Sequence::Options sequence;
    sequence.id = id;
    sequence.selection = std::make_shared<const AdapterSelection>();
    sequence.prompt = {1, id == 1 ? 7 : 8};
    sequence.sampling.temperature = 0;
    sequence.sampling.max_tokens = 1;
    scheduler.Add(std::make_unique<Sequence>(std::move(sequence)));
  }
  const Batch batch = scheduler.Schedule(absl::UnixEpoch());
  const std::vector<ResolvedSelection> base(batch.segments.size());
  const absl::StatusOr<StepOutput> output = runner->Run(batch, base);
  ASSERT_TRUE(output.ok()) << output.status();
  ASSERT_EQ(output->sampled.size(), 3u);
  ASSERT_EQ(output->row_status.size(), 3u);
  for (size_t row = 0; row < 3; ++row) {
    const bool damaged = batch.rows[row].sequence->id() == 1;
    EXPECT_EQ(output->row_status[row].code(),
              damaged ? absl::StatusCode::kInternal : absl::StatusCode::kOk);
  }
}

TEST(DecoderRunnerTest, ReadOfAFreedBlockIsSeen) {
  const DriverOptions options;
  const std::unique_ptr<DecoderRunner> runner = MakeRunner(SmallWeights(), options);
  BlockPool pool(options.num_blocks, options.block_size);
  SchedulerOptions scheduler_options;
  scheduler_options.max_context_tokens = kMaxPositions;
  Scheduler scheduler(scheduler_options, &pool);
  for (SequenceId id = 0; id < 2; ++id) {
    Sequence::Options sequence;
    sequence.id = id;
    sequence.selection = std::make_shared<const AdapterSelection>();
    sequence.prompt = {1, 8, static_cast<int32_t>(9 + id)};
    sequence.sampling.temperature = 0;
    sequence.sampling.max_tokens = 4;
    scheduler.Add(std::make_unique<Sequence>(std::move(sequence)));
  }
  const std::vector<ResolvedSelection> base(1);
  const Batch prefill = scheduler.Schedule(absl::UnixEpoch());
  const absl::StatusOr<StepOutput> first = runner->Run(prefill, base);
  ASSERT_TRUE(first.ok()) << first.status();
  scheduler.Commit(prefill, first->sampled, absl::UnixEpoch());
  // As if the scheduler had freed the first one's block and let it go on reading.
  Batch decode = scheduler.Schedule(absl::UnixEpoch());
  decode.recycled_blocks = {decode.rows[0].sequence->blocks()[0]};
  const absl::StatusOr<StepOutput> second = runner->Run(decode, base);
  ASSERT_TRUE(second.ok()) << second.status();
  ASSERT_EQ(second->row_status.size(), 2u);
  EXPECT_EQ(second->row_status[0].code(), absl::StatusCode::kInternal);
  EXPECT_TRUE(second->row_status[1].ok()) << second->row_status[1];
}

TEST(DecoderRunnerTest, BatchesThatNameWhatIsNotThereAreRefused) {
  const DriverOptions options;
  const std::unique_ptr<DecoderRunner> runner = MakeRunner(SmallWeights(), options);
  const std::vector<ResolvedSelection> base(1);
  const auto message = [&](const Batch& batch) {
    const absl::Status status = runner->Run(batch, base).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal) << status;
    return std::string(status.message());
  };
  Sequence::Options sequence_options;
  sequence_options.selection = std::make_shared<const AdapterSelection>();
  sequence_options.prompt = {1, 2, 3};
  const Sequence without_blocks(sequence_options);
  EXPECT_THAT(message(OneRow(without_blocks)), HasSubstr("0 blocks do not hold 3 tokens"));
  Batch too_long = OneRow(without_blocks);
  too_long.rows[0].num_tokens = 4;
  EXPECT_THAT(message(too_long), HasSubstr("tokens 0 to 4 of 3"));
  sequence_options.prompt = std::vector<int32_t>(kMaxPositions + 1, 1);
  const Sequence endless(sequence_options);
  EXPECT_THAT(message(OneRow(endless)), HasSubstr("position 256 is not below 256"));
  Batch without_segments = OneRow(without_blocks);
  without_segments.segments.clear();
  EXPECT_THAT(message(without_segments), HasSubstr("1 adapter lists for 0 segments"));
}

TEST(DecoderRunnerTest, TokenOutsideTheVocabularyIsAnErrorAndNotACrash) {
  const DriverOptions options;
  const std::unique_ptr<DecoderRunner> runner = MakeRunner(SmallWeights(), options);
  for (const int32_t token : {-1, 32, std::numeric_limits<int32_t>::max()}) {
    const absl::Status status =
        RunTogether(*runner, {}, {Request({1, token}, 1)}, options).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
    EXPECT_THAT(std::string(status.message()), HasSubstr("vocabulary of 32"));
  }
}

TEST(DecoderRunnerTest, EmptyBatchIsNoWork) {
  const std::unique_ptr<DecoderRunner> runner = MakeRunner(SmallWeights(), {});
  const absl::StatusOr<StepOutput> output = runner->Run(Batch{}, {});
  ASSERT_TRUE(output.ok()) << output.status();
  EXPECT_TRUE(output->sampled.empty());
}

}  // namespace
}  // namespace tenon
