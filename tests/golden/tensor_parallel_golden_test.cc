// Several tensor-parallel ranks against what transformers, PEFT and adapters computed on one, over
// gloo on the CPU.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "adapters/kernels/parallel.h"
#include "server/model/merged_weights.h"
#include "server/model/model.h"
#include "server/model/tensor_parallel_runner.h"
#include "tests/golden/adapter_files.h"
#include "tests/golden/bf16_errors.h"
#include "tests/golden/golden_files.h"
#include "tests/golden/golden_run.h"
#include "tests/golden/matrix_batch.h"
#include "tests/golden/step_driver.h"
#include "tests/source_dir.h"

namespace tenon {
namespace {

constexpr float kTolerance = 1e-4f;  // of log-probs in fp32, as for one rank

using ModelAndRanks = std::pair<const char*, int64_t>;

std::string NameOf(const testing::TestParamInfo<ModelAndRanks>& test) {
  return absl::StrCat(absl::StrReplaceAll(test.param.first, {{"-", "_"}}), "_on_",
                      test.param.second);
}

// Every method and composition of an architecture in one batch.
class TensorParallelMatrixTest : public testing::TestWithParam<ModelAndRanks> {
 protected:
  void SetUp() override { SetNumKernelThreads(1); }

  absl::StatusOr<std::vector<DriverResult>> Run(at::ScalarType dtype) {
    auto batch = MatrixBatch::Load(GetParam().first, dtype, GetParam().second);
    if (!batch.ok()) {
      return batch.status();
    }
    cases_ = batch->cases();
    return batch->RunTogether();
  }

  std::vector<MatrixCase> cases_;
};

TEST_P(TensorParallelMatrixTest, MixedBatchOfAllMethodsMatchesTheReference) {
  const auto results = Run(at::kFloat);
  ASSERT_TRUE(results.ok()) << results.status();
  float largest = 0;
  int num_compared = 0;
  for (size_t i = 0; i < cases_.size(); ++i) {
    const GoldenCase& golden = cases_[i].golden;
    if (ComputedAnotherWay(cases_[i].method)) {
      continue;
    }
    const float difference = LargestDifference(golden, (*results)[i]);
    EXPECT_LE(difference, kTolerance) << cases_[i].library << " " << golden.name;
    EXPECT_EQ((*results)[i].tokens(), golden.tokens) << cases_[i].library << " " << golden.name;
    largest = std::max(largest, difference);
    ++num_compared;
  }
  std::cout << num_compared << " cases, largest difference " << largest << "\n";
}

TEST_P(TensorParallelMatrixTest, Bf16IsAsCloseAsOneRank) {
  const auto results = Run(at::kBFloat16);
  ASSERT_TRUE(results.ok()) << results.status();
  Bf16Errors errors;
  for (size_t i = 0; i < cases_.size(); ++i) {
    if (!ComputedAnotherWay(cases_[i].method)) {
      errors.Add(cases_[i], (*results)[i]);
    }
  }
  for (size_t i = 0; i < cases_.size(); ++i) {
    if (!ComputedAnotherWay(cases_[i].method)) {
      EXPECT_EQ(errors.Complaint(cases_[i], (*results)[i]), "");
    }
  }
  std::cout << errors.Print();
  EXPECT_EQ(errors.Complaint(), "");
}

// Heads, KV heads: Llama 6, 2. Mistral 4, 2 (on 4 ranks two have the same KV head). Qwen 2 6, 3.
// Qwen 3 4, 2. Gemma 2 6, 2. Gemma 3 3, 1. GPT-2 3, 3. Vocabularies and most intermediate sizes are
// odd.
INSTANTIATE_TEST_SUITE_P(All, TensorParallelMatrixTest,
                         testing::Values(ModelAndRanks("llama", 2), ModelAndRanks("mistral", 2),
                                         ModelAndRanks("mistral", 4), ModelAndRanks("qwen2", 3),
                                         ModelAndRanks("qwen3", 2), ModelAndRanks("gemma2", 2),
                                         ModelAndRanks("gemma3", 3), ModelAndRanks("gpt2", 3)),
                         NameOf);

// A model with its adapters on several ranks.
class TensorParallelModel {
 public:
  static absl::StatusOr<std::unique_ptr<TensorParallelModel>> Load(const std::string& model_folder,
                                                                   const std::string& goldens,
                                                                   const ModelOptions& options) {
    SetNumKernelThreads(1);
    auto loaded = std::make_unique<TensorParallelModel>();
    absl::StatusOr<Model> model = LoadModel(SourcePath(model_folder), options);
    if (!model.ok()) {
      return model.status();
    }
    loaded->model = *std::move(model);
    loaded->goldens = *LoadGoldens(SourcePath(goldens), SourcePath(""));
    for (const auto& [name, path] : loaded->goldens.adapters) {
      loaded->adapters[name] = *CompileAdapterFolder(path, loaded->model.base, loaded->model.dtype);
    }
    if (loaded->model.config.ropes.empty()) {
      loaded->driver.max_context_tokens = loaded->model.config.max_position_embeddings;
    }
    loaded->driver.num_blocks = 1024;
    loaded->runner =
        *TensorParallelRunner::Create(loaded->model.decoder, loaded->driver.num_blocks,
                                      loaded->driver.block_size, loaded->driver.max_context_tokens);
    loaded->runner->set_poison_freed_blocks(true);
    return loaded;
  }

  DriverRequest RequestOf(const GoldenCase& golden) const {
    return GreedyRequest(golden, model.config.vocab_size);
  }
  std::vector<DriverRequest> AllRequests() const {
    std::vector<DriverRequest> requests;
    for (const GoldenCase& golden : goldens.cases) {
      requests.push_back(RequestOf(golden));
    }
    return requests;
  }

  Model model;
  Goldens goldens;
  AdapterMap adapters;
  DriverOptions driver;
  std::unique_ptr<TensorParallelRunner> runner;
};

ModelOptions Fp32(int64_t num_ranks) {
  ModelOptions options;
  options.dtype = at::kFloat;
  options.num_ranks = num_ranks;
  return options;
}

class TensorParallelTinyTest : public testing::TestWithParam<ModelAndRanks> {};

// In one batch at several chunk sizes, and with the prefix cache: bit for bit as alone.
TEST_P(TensorParallelTinyTest, EveryCaseMatchesTheReferenceAndARowAloneToTheBit) {
  const auto& [name, num_ranks] = GetParam();
  const std::string folder = absl::StrCat("tests/golden/data/", name);
  auto subject = TensorParallelModel::Load(folder + "/model", folder, Fp32(num_ranks));
  ASSERT_TRUE(subject.ok()) << subject.status();
  TensorParallelModel& loaded = **subject;
  const std::vector<DriverRequest> requests = loaded.AllRequests();
  std::map<size_t, DriverResult> alone;  // a few: each step of each costs its round trips
  for (size_t i = 0; i < requests.size(); i += 4) {
    auto result = RunTogether(*loaded.runner, loaded.adapters, {requests[i]}, loaded.driver);
    ASSERT_TRUE(result.ok()) << result.status();
    alone[i] = std::move(result->front());
  }
  for (const int64_t max_batch_tokens : {64, 512}) {
    loaded.driver.max_batch_tokens = max_batch_tokens;
    loaded.driver.prefix_cache = loaded.runner->prefix_sharing_is_exact();
    auto together = RunTogether(*loaded.runner, loaded.adapters, requests, loaded.driver);
    ASSERT_TRUE(together.ok()) << together.status();
    for (size_t i = 0; i < requests.size(); ++i) {
      const GoldenCase& golden = loaded.goldens.cases[i];
      EXPECT_LE(LargestDifference(golden, (*together)[i]), kTolerance) << golden.name;
      EXPECT_EQ((*together)[i].tokens(), golden.tokens) << golden.name;
      for (size_t step = 0; alone.contains(i) && step < golden.logprobs.size(); ++step) {
        EXPECT_EQ((*together)[i].steps[step].logprob, alone[i].steps[step].logprob)
            << golden.name << " step " << step;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Models, TensorParallelTinyTest,
                         testing::Values(ModelAndRanks("tiny-llama", 2),
                                         ModelAndRanks("tiny-llama", 4),
                                         ModelAndRanks("tiny-llama-rope-dynamic", 2),
                                         ModelAndRanks("tiny-llama-rope-linear", 4),
                                         ModelAndRanks("tiny-llama-rope-llama3", 2),
                                         ModelAndRanks("tiny-llama-rope-yarn", 2),
                                         ModelAndRanks("tiny-llama-sharded-bf16", 4),
                                         ModelAndRanks("tiny-llama-tied-bias", 3)),
                         NameOf);

class TensorParallelMergeTest
    : public testing::TestWithParam<std::tuple<const char*, const char*, int64_t>> {};

// Each rank's matrices are merged with its part of the adapters.
TEST_P(TensorParallelMergeTest, MergedSelectionsMatchTheReference) {
  const auto& [architecture, library, num_ranks] = GetParam();
  const std::string folder = absl::StrCat("tests/golden/data/matrix/", architecture, "/");
  auto subject = TensorParallelModel::Load(folder + "model", folder + library, Fp32(num_ranks));
  ASSERT_TRUE(subject.ok()) << subject.status();
  TensorParallelModel& loaded = **subject;
  loaded.runner->set_merge_costs(
      {.bytes_per_ns = 8, .macs_per_ns = 16, .delta_overhead_ns = 1e12});  // merged wherever it can
  std::unique_ptr<const MergedWeights> merged;
  loaded.driver.merged = [&merged](const AdapterSelection&) { return merged.get(); };
  int num_merged = 0;
  for (const GoldenCase& golden : loaded.goldens.cases) {
    const std::string method = golden.name.substr(0, golden.name.rfind('/'));
    const DriverRequest request = loaded.RequestOf(golden);
    std::vector<ResolvedAdapter> selected;
    if (!request.adapter.empty()) {
      selected.push_back({loaded.adapters.at(request.adapter).get(), 1.0f});
    }
    for (const auto& [name, weight] : request.selection) {
      selected.push_back({loaded.adapters.at(name).get(), weight});
    }
    auto weights = MergedWeights::Merge(*loaded.model.decoder, selected, [] { return false; });
    if (absl::IsFailedPrecondition(weights.status()) || ComputedAnotherWay(method)) {
      continue;  // there is nothing to merge
    }
    ASSERT_TRUE(weights.ok()) << weights.status();
    merged = *std::move(weights);
    auto result = RunTogether(*loaded.runner, loaded.adapters, {request}, loaded.driver);
    ASSERT_TRUE(result.ok()) << result.status();
    EXPECT_LE(LargestDifference(golden, result->front()), kTolerance) << golden.name;
    EXPECT_EQ(result->front().tokens(), golden.tokens) << golden.name;
    ++num_merged;
  }
  EXPECT_GT(num_merged, 0);
  std::cout << num_merged << " merged cases\n";
}

INSTANTIATE_TEST_SUITE_P(
    All, TensorParallelMergeTest,
    testing::Values(std::tuple("llama", "peft", 2), std::tuple("llama", "composition", 2),
                    std::tuple("llama", "adapterhub", 2), std::tuple("gpt2", "peft", 3)),
    [](const auto& test) {
      return absl::StrCat(std::get<0>(test.param), "_", std::get<1>(test.param), "_on_",
                          std::get<2>(test.param));
    });

// Rows of o and down are quantized in parts, so that one rank's int8 and two ranks' differ in the
// rounding of activations, and in nothing else.
TEST(TensorParallelInt8Test, Int8IsAsCloseToFp32AsOnOneRank) {
  const std::string folder = "tests/golden/data/tiny-llama";
  float mean[2] = {0, 0};
  for (const int64_t num_ranks : {1, 2}) {
    ModelOptions options = Fp32(num_ranks);
    options.weights = WeightFormat::kInt8;
    auto subject = TensorParallelModel::Load(folder + "/model", folder, options);
    ASSERT_TRUE(subject.ok()) << subject.status();
    TensorParallelModel& loaded = **subject;
    auto results =
        RunTogether(*loaded.runner, loaded.adapters, loaded.AllRequests(), loaded.driver);
    ASSERT_TRUE(results.ok()) << results.status();
    int count = 0;
    for (size_t i = 0; i < results->size(); ++i) {
      const GoldenCase& golden = loaded.goldens.cases[i];
      for (const TokenLogprob& top : (*results)[i].steps.front().top_logprobs) {
        mean[num_ranks - 1] += std::abs(top.logprob - golden.logprobs.front()[top.token]);
        ++count;
      }
    }
    mean[num_ranks - 1] /= static_cast<float>(count);
  }
  std::cout << "mean difference of a log-probability: " << mean[0] << " on one rank, " << mean[1]
            << " on two\n";
  EXPECT_GT(mean[0], 0.0f);
  EXPECT_LE(mean[1], 1.2f * mean[0]);
}

}  // namespace
}  // namespace tenon
