// Virtual tokens through the model, against sequences that have real tokens or their keys and
// values in the same places.
#include <ATen/ops/full.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "adapters/kernels/parallel.h"
#include "server/model/decoder_runner.h"
#include "server/model/model.h"
#include "tests/golden/step_driver.h"
#include "tests/server/model/config_text.h"
#include "tests/server/model/model_folder.h"

namespace tenon {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kMaxPositions = 256;
constexpr int64_t kLayers = 2;
constexpr int64_t kHeadDim = 4;

// The small model with a second layer, so that what a layer does to virtual tokens matters.
FloatTensors TwoLayers() {
  FloatTensors tensors = SmallWeights();
  const FloatTensors first = tensors;
  for (const auto& [name, tensor] : first) {
    if (const size_t at = name.find("layers.0."); at != std::string::npos) {
      FloatTensor& second = tensors[std::string(name).replace(at, 9, "layers.1.")];
      second = tensor;
      for (float& value : second.values) {
        value *= -0.8f;
      }
    }
  }
  return tensors;
}

class ContextRunnerTest : public testing::TestWithParam<KernelKind> {
 protected:
  static void SetUpTestSuite() { SetNumKernelThreads(1); }  // tiny operations: threads only wait
  void SetUp() override { Make(nlohmann::json()); }

  /// A runner over the model with that "rope_scaling", its KV cache full of NaN.
  void Make(const nlohmann::json& rope_scaling) {
    nlohmann::json config = SmallConfig();
    config["num_hidden_layers"] = kLayers;
    if (!rope_scaling.is_null()) {
      config["rope_scaling"] = rope_scaling;
    }
    const ModelFolder folder;
    folder.Write("config.json", config.dump());
    folder.WriteSafetensors("model.safetensors", TwoLayers());
    ModelOptions model_options;
    model_options.kernels = GetParam();
    absl::StatusOr<Model> model = LoadModel(folder.path(), model_options);
    ASSERT_TRUE(model.ok()) << model.status();
    absl::StatusOr<std::unique_ptr<DecoderRunner>> runner = DecoderRunner::Create(
        model->decoder, options_.num_blocks, options_.block_size, kMaxPositions);
    ASSERT_TRUE(runner.ok()) << runner.status();
    runner_ = *std::move(runner);
    runner_->set_poison_freed_blocks(true);
    for (int64_t layer = 0; layer < kLayers; ++layer) {
      runner_->kv_cache().keys(layer).fill_(std::nanf(""));
      runner_->kv_cache().values(layer).fill_(std::nanf(""));
    }
    const FloatTensor table = TwoLayers()["model.embed_tokens.weight"];
    embeddings_ = at::tensor(table.values).view({32, 16});
  }

  absl::StatusOr<std::vector<DriverResult>> TryRun(const std::vector<DriverRequest>& requests) {
    return RunTogether(*runner_, adapters_, requests, options_);
  }
  std::vector<DriverResult> Run(const std::vector<DriverRequest>& requests) {
    absl::StatusOr<std::vector<DriverResult>> results = TryRun(requests);
    EXPECT_TRUE(results.ok()) << results.status();
    return results.ok() ? *std::move(results) : std::vector<DriverResult>(requests.size());
  }
  static DriverRequest Request(std::vector<int32_t> prompt, const std::string& adapter = "") {
    DriverRequest request;
    request.prompt = std::move(prompt);
    request.adapter = adapter;
    request.sampling.max_tokens = 12;
    request.sampling.temperature = 0;
    request.sampling.logprobs = 3;
    return request;
  }

  /// An adapter whose virtual tokens are the embeddings of `tokens`.
  std::shared_ptr<CompiledAdapter> SoftPrompt(const std::vector<int32_t>& tokens) const {
    const std::vector<int64_t> ids(tokens.begin(), tokens.end());
    auto adapter = std::make_shared<CompiledAdapter>(kLayers);
    adapter->set_context({static_cast<int64_t>(tokens.size()),
                          at::index_select(embeddings_, 0, at::tensor(ids)),
                          {},
                          {}});
    return adapter;
  }
  /// An adapter whose virtual tokens have the keys and values of `tokens` at the beginning of a
  /// sequence, as the cache has them.
  std::shared_ptr<CompiledAdapter> Prefix(const std::vector<int32_t>& tokens) {
    Run({Request(tokens)});  // in blocks 0, 1, ...
    std::vector<at::Tensor> keys, values;
    const int64_t block_size = options_.block_size;
    for (int64_t layer = 0; layer < kLayers; ++layer) {
      std::vector<at::Tensor> layer_keys, layer_values;
      for (int64_t i = 0; i < static_cast<int64_t>(tokens.size()); ++i) {
        const at::Tensor block_keys = runner_->kv_cache().keys(layer).select(0, i / block_size);
        const at::Tensor block_values = runner_->kv_cache().values(layer).select(0, i / block_size);
        layer_keys.push_back(block_keys.select(2, i % block_size).clone());
        layer_values.push_back(
            block_values.select(1, i % block_size).narrow(1, 0, kHeadDim).clone());
      }
      keys.push_back(at::stack(layer_keys));
      values.push_back(at::stack(layer_values));
    }
    auto adapter = std::make_shared<CompiledAdapter>(kLayers);
    adapter->set_context(
        {static_cast<int64_t>(tokens.size()), {}, at::stack(keys), at::stack(values)});
    return adapter;
  }

  /// Same tokens, log-probabilities within `tolerance`.
  static void ExpectSame(const DriverResult& actual, const DriverResult& expected,
                         float tolerance) {
    EXPECT_EQ(actual.tokens(), expected.tokens());
    ASSERT_EQ(actual.steps.size(), expected.steps.size());
    for (size_t i = 0; i < actual.steps.size(); ++i) {
      EXPECT_NEAR(actual.steps[i].logprob, expected.steps[i].logprob, tolerance) << i;
    }
  }
  /// `adapter` gives each prompt what the same prompt behind `tokens` gets from `base`.
  void ExpectStandsFor(const std::shared_ptr<const CompiledAdapter>& adapter,
                       const std::vector<int32_t>& tokens, const std::string& base = "") {
    adapters_["context"] = adapter;
    std::vector<DriverRequest> behind, together;
    for (int32_t length = 1; length < 40; length += 6) {
      std::vector<int32_t> prompt(length);
      for (int32_t i = 0; i < length; ++i) {
        prompt[i] = (7 * length + 3 * i) % 32;
      }
      together.push_back(Request(prompt, "context"));
      prompt.insert(prompt.begin(), tokens.begin(), tokens.end());
      behind.push_back(Request(prompt, base));
    }
    const std::vector<DriverResult> expected = Run(behind);
    const std::vector<DriverResult> actual = Run(together);
    for (size_t i = 0; i < expected.size(); ++i) {
      SCOPED_TRACE(testing::Message() << tokens.size() << " virtual tokens, prompt " << i);
      // Without padding every slot is the same, and so is every bit.
      const bool exact = GetParam() == KernelKind::kCpu && tokens.size() % options_.block_size == 0;
      ExpectSame(actual[i], expected[i], exact ? 0 : 2e-5f);
    }
  }

  DriverOptions options_;
  std::unique_ptr<DecoderRunner> runner_;
  at::Tensor embeddings_;
  AdapterMap adapters_;
};

std::vector<int32_t> Words(int32_t count) {
  std::vector<int32_t> tokens(count);
  for (int32_t i = 0; i < count; ++i) {
    tokens[i] = (5 * i + 4) % 32;
  }
  return tokens;
}

TEST_P(ContextRunnerTest, SoftPromptOfEmbeddingsIsTheTokensThemselves) {
  for (const int32_t count : {1, 15, 16, 17, 32, 45, 70}) {
    ExpectStandsFor(SoftPrompt(Words(count)), Words(count));
  }
}

TEST_P(ContextRunnerTest, PrefixOfKeysAndValuesIsTheTokensThemselves) {
  for (const int32_t count : {1, 16, 21, 32, 70}) {
    Make(nlohmann::json());
    ExpectStandsFor(Prefix(Words(count)), Words(count));
  }
}

TEST_P(ContextRunnerTest, BlocksOfAnySizeArePaddedOnTheLeft) {
  for (const int64_t block_size : {1, 4, 8, 100, 128}) {
    options_.block_size = block_size;
    options_.num_blocks = 4096 / block_size;
    Make(nlohmann::json());
    ExpectStandsFor(SoftPrompt(Words(5)), Words(5));
  }
}

TEST_P(ContextRunnerTest, SoftPromptRunsUnderTheDeltasOfItsSelection) {
  const auto delta = [](double value) {
    SiteDelta site;
    absl::StatusOr<LowRankDelta> low_rank =
        LowRankDelta::Create(at::full({2, 16}, value), at::full({8, 2}, 0.3), 1.0f);
    EXPECT_TRUE(low_rank.ok()) << low_rank.status();
    site.low_rank = *std::move(low_rank);
    return site;
  };
  auto lora = std::make_shared<CompiledAdapter>(kLayers);
  const std::shared_ptr<CompiledAdapter> both = SoftPrompt(Words(32));
  for (int64_t layer = 0; layer < kLayers; ++layer) {
    for (CompiledAdapter* adapter : {lora.get(), both.get()}) {
      adapter->set_delta(layer, Site::kV, delta(0.2 + static_cast<double>(layer)));
    }
  }
  adapters_["lora"] = lora;
  ExpectStandsFor(both, Words(32), "lora");
  adapters_["bare"] = SoftPrompt(Words(32));
  EXPECT_NE(Run({Request({1, 2}, "bare")})[0].steps[0].logprob,
            Run({Request({1, 2}, "context")})[0].steps[0].logprob)
      << "the delta does something";
}

TEST_P(ContextRunnerTest, SharingIsBitEqualToNotSharing) {
  adapters_["soft"] = SoftPrompt(Words(21));
  adapters_["prefix"] = Prefix(Words(37));
  std::vector<DriverRequest> requests;
  for (int32_t i = 0; i < 24; ++i) {
    requests.push_back(Request(std::vector<int32_t>(1 + i, i),
                               std::vector<std::string>{"soft", "prefix", ""}[i % 3]));
  }
  const std::vector<DriverResult> together = Run(requests);
  for (size_t i = 0; i < requests.size(); ++i) {
    ExpectSame(together[i], Run({requests[i]})[0], GetParam() == KernelKind::kCpu ? 0 : 1e-5f);
  }
}

TEST_P(ContextRunnerTest, ChunksAndPreemptionChangeNothing) {
  adapters_["soft"] = SoftPrompt(Words(90));
  adapters_["prefix"] = Prefix(Words(85));
  const float tolerance = GetParam() == KernelKind::kCpu ? 0 : 1e-5f;
  std::vector<DriverRequest> requests;
  for (int32_t i = 0; i < 6; ++i) {
    requests.push_back(Request(std::vector<int32_t>(9, 2 + i), i % 2 == 0 ? "soft" : "prefix"));
    requests.back().sampling.max_tokens = 30;
  }
  const std::vector<DriverResult> whole = Run(requests);
  options_.max_batch_tokens = 64;
  const std::vector<DriverResult> chunked = Run(requests);
  options_.num_blocks = 16;  // 6 for each context, 3 for each sequence
  const std::vector<DriverResult> preempted = Run(requests);
  for (size_t i = 0; i < requests.size(); ++i) {
    ExpectSame(chunked[i], whole[i], tolerance);
    ExpectSame(preempted[i], whole[i], tolerance);
  }
}

TEST_P(ContextRunnerTest, DynamicRopeScalingTakesPrefixesAndNoSoftPrompts) {
  Make({{"rope_type", "dynamic"}, {"factor", 4.0}});
  ASSERT_FALSE(runner_->prefix_sharing_is_exact());
  adapters_["soft"] = SoftPrompt(Words(5));
  const absl::Status refused = TryRun({Request({1, 2}, "soft")}).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("dynamic rope scaling"));
  adapters_["prefix"] = Prefix(Words(5));
  Run({Request({1, 2}, "prefix")});
}

TEST_P(ContextRunnerTest, OtherNumberOfVirtualTokensThanPromisedFailsTheContext) {
  AdapterInfo info;
  info.digest = "soft";
  info.num_virtual_tokens = 4;
  const AdapterHandle handle(std::make_shared<const AdapterInfo>(info));
  BlockPool pool(options_.num_blocks, options_.block_size);
  SchedulerOptions scheduler_options;
  scheduler_options.max_context_tokens = kMaxPositions;
  Scheduler scheduler(scheduler_options, &pool);
  for (SequenceId id = 0; id < 2; ++id) {
    Sequence::Options sequence;
    sequence.id = id;
    sequence.selection = id == 0 ? std::make_shared<const AdapterSelection>()
                                 : std::make_shared<const AdapterSelection>(
                                       std::vector<WeightedAdapter>{{handle, 1.0f}});
    sequence.prompt = {1, 2};
    sequence.sampling.temperature = 0;
    sequence.sampling.max_tokens = 1;
    scheduler.Add(std::make_unique<Sequence>(std::move(sequence)));
  }
  const Batch batch = scheduler.Schedule(absl::UnixEpoch());
  const std::shared_ptr<const CompiledAdapter> five = SoftPrompt(Words(5));
  const std::vector<ResolvedSelection> adapters = {
      {}, {{{five.get(), 1.0f}}}, {{{five.get(), 1.0f}}}};
  const absl::StatusOr<StepOutput> output = runner_->Run(batch, adapters);
  ASSERT_TRUE(output.ok()) << output.status();
  ASSERT_EQ(output->context_status.size(), 1u);
  EXPECT_THAT(std::string(output->context_status[0].message()),
              HasSubstr("promises 4 virtual tokens, the adapters have 5"));
  EXPECT_TRUE(output->row_status.empty() || output->row_status[0].ok()) << "the base goes on";
}

INSTANTIATE_TEST_SUITE_P(Kernels, ContextRunnerTest,
                         testing::Values(KernelKind::kCpu, KernelKind::kReference),
                         [](const testing::TestParamInfo<KernelKind>& test) {
                           return test.param == KernelKind::kCpu ? "Cpu" : "Reference";
                         });

}  // namespace
}  // namespace tenon
