// Recorded decode steps against the same steps operation by operation; on the host, or on a GPU.
#include "server/model/decode_graphs.h"

#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/model/decoder_runner.h"
#include "server/model/model.h"
#include "tests/device/test_device.h"
#include "tests/golden/adapter_files.h"
#include "tests/golden/step_driver.h"
#include "tests/source_dir.h"

namespace tenon {
namespace {

constexpr const char* kFolder = "tests/golden/data/matrix/llama/";
constexpr int64_t kMaxPositions = 128;

class DecodeGraphsTest : public testing::TestWithParam<at::ScalarType> {
 protected:
  void SetUp() override {
    ModelOptions options;
    options.dtype = GetParam();
    options.device = KernelTestDevice().device;
    options.kernels = KernelTestDevice().fast;
    ASSERT_EQ(options.kernels, KernelKind::kCuda) << "others are not recorded";
    absl::StatusOr<Model> model = LoadModel(SourcePath(absl::StrCat(kFolder, "model")), options);
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
    driver_.max_context_tokens = kMaxPositions;
    runner_ = MakeRunner();
    ASSERT_NE(runner_, nullptr);
  }

  std::unique_ptr<DecoderRunner> MakeRunner() const {
    auto runner = DecoderRunner::Create(model_.decoder, driver_.num_blocks, driver_.block_size,
                                        kMaxPositions);
    EXPECT_TRUE(runner.ok()) << runner.status();
    if (!runner.ok()) {
      return nullptr;
    }
    (*runner)->set_poison_freed_blocks(true);
    return *std::move(runner);
  }

  // The request's adapter is "<library>/<name>"; `tag` makes requests differ.
  DriverRequest Request(const std::string& adapter, int32_t tag) {
    DriverRequest request;
    request.adapter = adapter;
    request.prompt = {1, 5 + tag % 40, 9, 30 - tag % 20};
    request.sampling.max_tokens = 5;
    request.sampling.temperature = 0;
    request.sampling.logprobs = 2;
    if (!adapter.empty() && !adapters_.contains(adapter)) {
      adapters_[adapter] = Compiled(adapter);
    }
    return request;
  }

  std::shared_ptr<const CompiledAdapter> Compiled(const std::string& adapter) {
    const size_t slash = adapter.find('/');
    const std::string folder =
        absl::StrCat(kFolder, adapter.substr(0, slash), "/adapters", adapter.substr(slash));
    auto compiled = CompileAdapterFolder(SourcePath(folder), model_.base, model_.dtype);
    EXPECT_TRUE(compiled.ok()) << adapter << ": " << compiled.status();
    return compiled.ok() ? *std::move(compiled) : nullptr;
  }

  std::vector<DriverResult> Run(const std::vector<DriverRequest>& requests) {
    auto results = RunTogether(*runner_, adapters_, requests, driver_);
    EXPECT_TRUE(results.ok()) << results.status();
    return results.ok() ? *std::move(results) : std::vector<DriverResult>(requests.size());
  }

  int64_t num_graphs() const { return runner_->graphs()->num_graphs(); }
  int64_t num_replays() const { return runner_->graphs()->num_replays(); }

  // Runs the requests twice with graphs, that all shapes are replayed, and once without, and
  // returns how many steps of the second time were replays. Products of more rows may be summed in
  // another order.
  int64_t ExpectAsWithout(const std::vector<DriverRequest>& requests, const std::string& what) {
    Run(requests);
    const int64_t before = num_replays();
    const std::vector<DriverResult> replayed = Run(requests);
    const int64_t replays = num_replays() - before;
    EXPECT_EQ(runner_->graphs()->problem(), "");
    runner_->set_use_graphs(false);
    const std::vector<DriverResult> expected = Run(requests);
    runner_->set_use_graphs(true);
    const double tolerance = GetParam() == at::kFloat ? 1e-4 : 0.05;
    for (size_t i = 0; i < requests.size(); ++i) {
      EXPECT_EQ(replayed[i].steps.size(), 5u) << what;
      EXPECT_EQ(expected[i].steps.size(), 5u) << what;
      const size_t steps = std::min(replayed[i].steps.size(), expected[i].steps.size());
      for (size_t s = 0; s < steps && expected[i].steps[s].token == replayed[i].steps[s].token;
           ++s) {
        EXPECT_NEAR(replayed[i].steps[s].logprob, expected[i].steps[s].logprob, tolerance)
            << what << ", request " << i << ", step " << s;
      }
      EXPECT_TRUE(GetParam() != at::kFloat || replayed[i].tokens() == expected[i].tokens()) << what;
    }
    return replays;
  }

  // The requests need no more graphs, and have the tokens of a runner that has not seen others.
  void ExpectSame(const std::vector<DriverRequest>& requests, int64_t graphs) {
    const std::vector<DriverResult> replayed = Run(requests);
    EXPECT_EQ(num_graphs(), graphs);
    const std::unique_ptr<DecoderRunner> fresh = MakeRunner();
    fresh->set_use_graphs(false);
    const auto expected = RunTogether(*fresh, adapters_, requests, driver_);
    ASSERT_TRUE(expected.ok()) << expected.status();
    for (size_t i = 0; i < requests.size(); ++i) {
      EXPECT_EQ(replayed[i].tokens(), (*expected)[i].tokens());
    }
  }

  Model model_;
  std::unique_ptr<DecoderRunner> runner_;
  DriverOptions driver_;
  AdapterMap adapters_;
};

TEST_P(DecodeGraphsTest, EveryFamilyIsAsWithoutGraphs) {
  for (const char* adapter :
       {"", "peft/lora-all-linear", "peft/lora-dora", "peft/lora-bias-all", "peft/lora-some-layers",
        "peft/loha", "peft/vera", "peft/lokr-full", "peft/prefix-tuning", "peft/prompt-tuning",
        "adapterhub/ia3", "peft/ia3", "peft/ia3-feedforward-attention", "adapterhub/seq_bn",
        "adapterhub/double_seq_bn-ln-before", "adapterhub/par_bn-channel"}) {
    Run({Request(adapter, 3)});
    EXPECT_EQ(num_replays(), 3) << adapter << ": four decode steps, the first recorded";
    EXPECT_EQ(ExpectAsWithout({Request(adapter, 3)}, adapter), 4) << adapter;
  }
}

TEST_P(DecodeGraphsTest, FamiliesInOneBatchAreAsWithoutGraphs) {
  std::vector<DriverRequest> requests;
  for (int32_t i = 0; i < 3; ++i) {  // 21 rows, of which some adapters have three
    for (const char* adapter : {"", "peft/lora-all-linear", "peft/lora-rslora", "peft/lora-dora",
                                "peft/vera", "adapterhub/seq_bn", "adapterhub/par_bn"}) {
      requests.push_back(Request(adapter, 7 * i));
    }
  }
  EXPECT_EQ(ExpectAsWithout(requests, "together"), 4);
}

// What changes is in the tables that a replay reads.
TEST_P(DecodeGraphsTest, AnotherAdapterNeedsNoOtherGraph) {
  const std::string all = "peft/lora-all-linear";
  Run({Request(all, 1), Request("peft/lora-rslora", 2)});
  const int64_t graphs = num_graphs();
  EXPECT_GT(graphs, 0);
  for (const char* other : {"peft/lora-dora", "peft/vera", "peft/lokr-full", "peft/loha"}) {
    ExpectSame({Request(all, 1), Request(other, 2)}, graphs);
    ExpectSame({Request(other, 3), Request(all, 4)}, graphs);
  }
}

TEST_P(DecodeGraphsTest, AnotherVersionOfAnAdapterNeedsNoOtherGraph) {
  const std::string name = "peft/lora-dora";
  const std::vector<DriverRequest> requests = {Request("peft/lora-all-linear", 1),
                                               Request(name, 2)};
  const std::vector<int32_t> before = Run(requests)[1].tokens();
  const int64_t graphs = num_graphs();
  const auto old = std::exchange(adapters_[name], Compiled("peft/lokr-full"));
  ExpectSame(requests, graphs);
  adapters_[name] = old;
  EXPECT_EQ(Run(requests)[1].tokens(), before);
  EXPECT_EQ(num_graphs(), graphs);
}

TEST_P(DecodeGraphsTest, RowsAreRoundedUpToFewShapes) {
  for (int32_t rows = 1; rows <= 20; ++rows) {
    Run(std::vector<DriverRequest>(static_cast<size_t>(rows), Request("", rows)));
  }
  EXPECT_EQ(num_graphs(), 6);  // of 1, 2, 4, 8, 16 and 24 rows
}

TEST_P(DecodeGraphsTest, WhatPlansDoNotHoldRunsWithoutGraphs) {
  for (const char* adapter : {"peft/lora-embedding", "peft/lora-head"}) {
    EXPECT_EQ(ExpectAsWithout({Request(adapter, 2)}, adapter), 0) << adapter;
  }
  DriverRequest scored = Request("", 1);
  scored.sampling.prompt_logprobs = 1;
  EXPECT_EQ(ExpectAsWithout({scored}, "with a prompt's log-probabilities"), 4);
}

TEST_P(DecodeGraphsTest, SampledTokensAreAsWithoutGraphs) {
  std::vector<DriverRequest> requests;
  for (int32_t i = 0; i < 6; ++i) {
    DriverRequest request = Request(i % 2 == 0 ? "" : "peft/lora-all-linear", i);
    request.sampling.logprobs.reset();  // the device chooses
    request.sampling.temperature = 1.0f;
    request.sampling.top_p = 0.9f;
    request.sampling.seed = static_cast<uint64_t>(100 + i);
    request.sampling.repetition_penalty = 1.3f;
    requests.push_back(std::move(request));
  }
  EXPECT_EQ(ExpectAsWithout(requests, "sampled"), 4);
}

INSTANTIATE_TEST_SUITE_P(Types, DecodeGraphsTest, testing::Values(at::kFloat, at::kBFloat16),
                         [](const auto& test) {
                           return test.param == at::kFloat ? "fp32" : "bf16";
                         });

}  // namespace
}  // namespace tenon
