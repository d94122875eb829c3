// Merging changes no answer: every adapter of the golden matrix, and every composition, merged and
// not, on every architecture.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <iostream>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "adapters/kernels/parallel.h"
#include "server/model/decoder_runner.h"
#include "server/model/merged_weights.h"
#include "server/model/model.h"
#include "tests/device/test_device.h"
#include "tests/golden/adapter_files.h"
#include "tests/golden/golden_files.h"
#include "tests/golden/golden_run.h"
#include "tests/golden/step_driver.h"
#include "tests/source_dir.h"

namespace tenon {
namespace {

// Of log-probabilities in fp32: what another order of rounding makes of some layers.
constexpr float kTolerance = 1e-4f;

std::string DataFolder(const std::string& name) {
  return SourcePath(absl::StrCat("tests/golden/data/matrix/", name));
}

class MergeGoldenTest : public testing::TestWithParam<std::pair<const char*, const char*>> {
 protected:
  void SetUp() override {
    SetNumKernelThreads(1);
    const std::string architecture = GetParam().first, library = GetParam().second;
    ModelOptions options;
    options.dtype = at::kFloat;
    options.device = SelectedTestDevice().device;
    options.kernels = SelectedTestDevice().fast;
    absl::StatusOr<Model> model = LoadModel(DataFolder(architecture + "/model"), options);
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
    driver_.max_context_tokens = model_.config.max_position_embeddings;
    absl::StatusOr<Goldens> goldens =
        LoadGoldens(DataFolder(absl::StrCat(architecture, "/", library)), SourcePath(""));
    ASSERT_TRUE(goldens.ok()) << goldens.status();
    goldens_ = *std::move(goldens);
    for (const auto& [name, path] : goldens_.adapters) {
      const auto adapter = CompileAdapterFolder(path, model_.base, model_.dtype);
      ASSERT_TRUE(adapter.ok()) << name << ": " << adapter.status();
      adapters_[name] = *adapter;
    }
    runner_ = *DecoderRunner::Create(model_.decoder, driver_.num_blocks, driver_.block_size,
                                     driver_.max_context_tokens);
    driver_.merged = [this](const AdapterSelection& selection) -> const MergedWeights* {
      const auto found = merged_.find(selection.key());
      return found == merged_.end() ? nullptr : found->second.get();
    };
  }

  // Merges what a case selects, unless it has been; false when nothing of it can be merged.
  bool Merge(const GoldenCase& golden) {
    std::vector<std::pair<std::string, float>> wanted = golden.selection;
    if (!golden.adapter.empty()) {
      wanted.emplace_back(golden.adapter, 1.0f);
    }
    std::vector<ResolvedAdapter> resolved;
    std::vector<WeightedAdapter> handles;
    for (const auto& [name, weight] : wanted) {
      resolved.push_back({adapters_.at(name).get(), weight});
      AdapterInfo info;
      info.digest = name;
      handles.push_back({AdapterHandle(std::make_shared<const AdapterInfo>(info)), weight});
    }
    const std::string key = AdapterSelection(handles).key();
    if (merged_.contains(key)) {
      return true;
    }
    auto merged = MergedWeights::Merge(*model_.decoder, resolved, [] { return false; });
    if (absl::IsFailedPrecondition(merged.status())) {
      return false;
    }
    EXPECT_TRUE(merged.ok()) << golden.name << ": " << merged.status();
    if (!merged.ok()) {
      return false;
    }
    merged_[key] = *std::move(merged);
    return true;
  }

  DriverRequest RequestOf(const GoldenCase& golden) const {
    return GreedyRequest(golden, model_.config.vocab_size);
  }

  // Runs all together; `overhead_ns` decides whether merged weights are used in a mixed batch.
  std::vector<DriverResult> Run(const std::vector<DriverRequest>& requests, double overhead_ns) {
    runner_->set_merge_costs(
        {.bytes_per_ns = 8, .macs_per_ns = 16, .delta_overhead_ns = overhead_ns});
    auto results = RunTogether(*runner_, adapters_, requests, driver_);
    EXPECT_TRUE(results.ok()) << results.status();
    return results.ok() ? *std::move(results) : std::vector<DriverResult>(requests.size());
  }

  // What may differ where the kernels promise every bit.
  float Exact() const { return runner_->is_batch_invariant() ? 0.0f : kTolerance; }

  DriverOptions driver_;
  Model model_;
  Goldens goldens_;
  AdapterMap adapters_;
  std::map<std::string, std::unique_ptr<const MergedWeights>> merged_;
  std::unique_ptr<DecoderRunner> runner_;
};

constexpr double kAlways = 1e12, kNever = -1e12;

float LargestDifference(const DriverResult& one, const DriverResult& two) {
  float largest = 0;
  for (size_t step = 0; step < one.steps.size() && step < two.steps.size(); ++step) {
    std::map<int32_t, float> logprobs;
    for (const TokenLogprob& top : one.steps[step].top_logprobs) {
      logprobs[top.token] = top.logprob;
    }
    for (const TokenLogprob& top : two.steps[step].top_logprobs) {
      largest = std::max(largest, std::abs(top.logprob - logprobs.at(top.token)));
    }
  }
  return largest;
}

// One batch that holds all: merged cells, cells that cannot be merged, and the base beside them.
TEST_P(MergeGoldenTest, MergedCellsOfOneBatchEqualUnmergedOnes) {
  std::vector<DriverRequest> requests;
  std::vector<bool> can_merge;
  for (const GoldenCase& golden : goldens_.cases) {
    requests.push_back(RequestOf(golden));
    can_merge.push_back(Merge(golden));
  }
  ASSERT_GT(merged_.size(), 0u);
  const std::vector<DriverResult> unmerged = Run(requests, kNever);
  const std::vector<DriverResult> merged = Run(requests, kAlways);
  std::map<std::string, float> worst;
  int num_changed = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    const std::string& name = goldens_.cases[i].name;
    const float difference = LargestDifference(unmerged[i], merged[i]);
    EXPECT_EQ(merged[i].tokens(), unmerged[i].tokens()) << name;
    if (can_merge[i]) {
      EXPECT_LE(difference, kTolerance) << name;
      num_changed += difference > 0 ? 1 : 0;
      float& most = worst[name.substr(0, name.rfind('/'))];
      most = std::max(most, difference);
    } else {
      EXPECT_LE(difference, Exact()) << name << " is not merged and keeps every bit";
    }
  }
  EXPECT_GT(num_changed, 0) << "nothing ran merged";
  for (const auto& [method, difference] : worst) {
    std::cout << method << " " << difference << "\n";
  }
}

// Alone in its step a selection runs merged whatever the costs, and as in the mixed batch, bit for
// bit: which weights a row uses decides, not who is beside it.
TEST_P(MergeGoldenTest, MergedRowAloneEqualsMergedRowInABatch) {
  std::vector<DriverRequest> requests;
  for (const GoldenCase& golden : goldens_.cases) {
    Merge(golden);
    requests.push_back(RequestOf(golden));
  }
  const std::vector<DriverResult> together = Run(requests, kAlways);
  for (size_t i = 0; i < requests.size(); i += 5) {
    const std::vector<DriverResult> alone = Run({requests[i]}, kAlways);
    EXPECT_LE(LargestDifference(together[i], alone[0]), Exact()) << goldens_.cases[i].name;
  }
}

TEST_P(MergeGoldenTest, BaseWeightsStayPristine) {
  std::vector<DriverRequest> requests(1);
  requests[0].prompt = {1, 2, 3, 4, 5};
  requests[0].sampling.temperature = 0;
  requests[0].sampling.max_tokens = 8;
  requests[0].sampling.logprobs = static_cast<int32_t>(model_.config.vocab_size);
  const std::vector<DriverResult> before = Run(requests, kAlways);
  for (size_t i = 0; i < goldens_.cases.size(); i += 4) {
    Merge(goldens_.cases[i]);
  }
  ASSERT_GT(merged_.size(), 0u);
  merged_.clear();
  EXPECT_EQ(LargestDifference(before[0], Run(requests, kAlways)[0]), 0.0f);
}

std::vector<std::pair<const char*, const char*>> AllColumns() {
  std::vector<std::pair<const char*, const char*>> columns = {{"llama", "composition"}};
  for (const char* architecture :
       {"llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "gpt2"}) {
    columns.emplace_back(architecture, "peft");
    columns.emplace_back(architecture, "adapterhub");
  }
  return columns;
}

INSTANTIATE_TEST_SUITE_P(All, MergeGoldenTest, testing::ValuesIn(AllColumns()),
                         [](const auto& test) {
                           return absl::StrCat(test.param.first, "_", test.param.second);
                         });

}  // namespace
}  // namespace tenon
