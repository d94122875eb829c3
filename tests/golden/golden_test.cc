// What the server computes against what transformers and PEFT computed (make_goldens.py).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "adapters/base/status_macros.h"
#include "adapters/kernels/parallel.h"
#include "server/model/decoder_runner.h"
#include "server/model/model.h"
#include "tests/device/test_device.h"
#include "tests/golden/adapter_files.h"
#include "tests/golden/golden_files.h"
#include "tests/golden/golden_run.h"
#include "tests/golden/step_driver.h"
#include "tests/source_dir.h"

namespace tenon {
namespace {

constexpr float kTinyTolerance = 1e-4f;
constexpr float kRealTolerance = 1e-3f;

std::string DataFolder(const std::string& model) {
  return SourcePath(absl::StrCat("tests/golden/data/", model));
}

// A model, its adapters and what the reference says of them.
struct Subject {
  Model model;
  Goldens goldens;
  AdapterMap adapters;
  std::unique_ptr<DecoderRunner> runner;
  DriverOptions driver;
};

// With the kernels on the CPU, or with what stands for them on the device that tests run on.
absl::StatusOr<Subject> MakeSubject(const std::string& folder, const std::string& model_folder,
                                    KernelKind kernels = KernelKind::kCpu) {
  SetNumKernelThreads(1);  // two busy threads of a shared machine wait for each other
  ModelOptions options;
  options.dtype = at::kFloat;
  options.device = SelectedTestDevice().device;
  options.kernels = SelectedTestDevice().KernelsFor(kernels);
  Subject subject;
  TENON_ASSIGN_OR_RETURN(subject.model, LoadModel(model_folder, options));
  TENON_ASSIGN_OR_RETURN(subject.goldens, LoadGoldens(folder, SourcePath("")));
  for (const auto& [name, path] : subject.goldens.adapters) {
    TENON_ASSIGN_OR_RETURN(subject.adapters[name],
                           CompileAdapterFolder(path, subject.model.base, subject.model.dtype));
  }
  TENON_ASSIGN_OR_RETURN(
      subject.runner,
      DecoderRunner::Create(subject.model.decoder, subject.driver.num_blocks,
                            subject.driver.block_size, subject.driver.max_context_tokens));
  subject.runner->set_poison_freed_blocks(true);
  return subject;
}

// Compares step by step. Where the reference's two best are closer than the tolerance, another
// order of summation may rightly choose the other: what follows is then another text, and the rest
// of the case is not compared. Returns the largest difference seen.
float ExpectMatches(const GoldenCase& golden, const DriverResult& result, float tolerance) {
  float largest = 0;
  EXPECT_EQ(result.steps.size(), golden.tokens.size()) << golden.name;
  for (size_t i = 0; i < std::min(result.steps.size(), golden.tokens.size()); ++i) {
    if (i < golden.logprobs.size()) {
      const float difference = LargestDifference(result.steps[i], golden.logprobs[i]);
      EXPECT_EQ(result.steps[i].top_logprobs.size(), golden.logprobs[i].size()) << golden.name;
      EXPECT_LE(difference, tolerance) << golden.name << " step " << i;
      largest = std::max(largest, difference);
    }
    if (result.steps[i].token == golden.tokens[i]) {
      continue;
    }
    if (golden.margins[i] < tolerance) {
      std::cout << golden.name << ": step " << i << " chose " << result.steps[i].token << " for "
                << golden.tokens[i] << " at a margin of " << golden.margins[i]
                << "; the rest is not compared\n";
      return largest;
    }
    ADD_FAILURE() << golden.name << " step " << i << ": token " << result.steps[i].token
                  << ", want " << golden.tokens[i] << " (margin " << golden.margins[i] << ")";
    return largest;
  }
  return largest;
}

// Runs each case alone, then all together at several chunk sizes, and compares everything with
// the reference; together must equal alone to the bit where the kernels promise it.
void CheckAllCases(Subject& subject, float tolerance, bool exact,
                   const std::vector<int64_t>& step_sizes) {
  std::vector<DriverRequest> requests;
  std::vector<DriverResult> alone;
  float largest = 0;
  for (const GoldenCase& golden : subject.goldens.cases) {
    requests.push_back(GreedyRequest(golden, subject.model.config.vocab_size));
    absl::StatusOr<std::vector<DriverResult>> result =
        RunTogether(*subject.runner, subject.adapters, {requests.back()}, subject.driver);
    ASSERT_TRUE(result.ok()) << golden.name << ": " << result.status();
    largest = std::max(largest, ExpectMatches(golden, result->front(), tolerance));
    alone.push_back(std::move(result->front()));
  }
  for (const int64_t max_batch_tokens : step_sizes) {
    subject.driver.max_batch_tokens = max_batch_tokens;
    absl::StatusOr<std::vector<DriverResult>> together =
        RunTogether(*subject.runner, subject.adapters, requests, subject.driver);
    ASSERT_TRUE(together.ok()) << together.status();
    for (size_t i = 0; i < requests.size(); ++i) {
      const GoldenCase& golden = subject.goldens.cases[i];
      largest = std::max(largest, ExpectMatches(golden, (*together)[i], tolerance));
      if (exact) {
        EXPECT_EQ((*together)[i].tokens(), alone[i].tokens()) << golden.name;
        for (size_t s = 0; s < golden.logprobs.size(); ++s) {
          EXPECT_EQ((*together)[i].steps[s].logprob, alone[i].steps[s].logprob)
              << golden.name << " step " << s << " at " << max_batch_tokens << " tokens a step";
        }
      }
    }
  }
  std::cout << subject.goldens.cases.size() << " cases, largest difference of a log-probability "
            << largest << " (tolerance " << tolerance << ")\n";
}

class TinyGoldenTest : public ::testing::TestWithParam<std::tuple<std::string, KernelKind>> {};

TEST_P(TinyGoldenTest, EveryCaseAloneAndTogetherMatchesTheReference) {
  const auto& [model, kernels] = GetParam();
  absl::StatusOr<Subject> subject =
      MakeSubject(DataFolder(model), DataFolder(model) + "/model", kernels);
  ASSERT_TRUE(subject.ok()) << subject.status();
  CheckAllCases(*subject, kTinyTolerance, subject->runner->is_batch_invariant(), {64, 97, 512});
}

INSTANTIATE_TEST_SUITE_P(
    Models, TinyGoldenTest,
    ::testing::Combine(::testing::Values("tiny-llama", "tiny-llama-rope-dynamic",
                                         "tiny-llama-rope-linear", "tiny-llama-rope-llama3",
                                         "tiny-llama-rope-yarn", "tiny-llama-sharded-bf16",
                                         "tiny-llama-tied-bias"),
                       ::testing::Values(KernelKind::kReference, KernelKind::kCpu)),
    [](const auto& param_info) {
      return absl::StrCat(
          absl::StrReplaceAll(std::get<0>(param_info.param), {{"-", "_"}}),
          std::get<1>(param_info.param) == KernelKind::kCpu ? "_fast" : "_reference");
    });

TEST(PrefixCacheGoldenTest, SharedPrefixesChangeNothing) {
  absl::StatusOr<Subject> subject =
      MakeSubject(DataFolder("tiny-llama"), DataFolder("tiny-llama") + "/model");
  ASSERT_TRUE(subject.ok()) << subject.status();
  ASSERT_TRUE(subject->runner->prefix_sharing_is_exact());
  subject->driver.prefix_cache = true;
  subject->driver.block_size = 16;
  std::vector<DriverRequest> requests;
  std::vector<GoldenCase> cases;
  for (const GoldenCase& golden : subject->goldens.cases) {
    // Twice, so that each second one finds the first one's blocks.
    for (int i = 0; i < 2; ++i) {
      cases.push_back(golden);
      requests.push_back(GreedyRequest(golden, subject->model.config.vocab_size));
    }
  }
  absl::StatusOr<std::vector<DriverResult>> results =
      RunTogether(*subject->runner, subject->adapters, requests, subject->driver);
  ASSERT_TRUE(results.ok()) << results.status();
  for (size_t i = 0; i < cases.size(); ++i) {
    ExpectMatches(cases[i], (*results)[i], kTinyTolerance);
  }
}

// Without log-probabilities a device chooses the tokens itself.
TEST(TokensGoldenTest, TokensAloneAreTheReferences) {
  const std::string folder = DataFolder("tiny-llama-tied-bias");
  absl::StatusOr<Subject> subject = MakeSubject(folder, folder + "/model");
  ASSERT_TRUE(subject.ok()) << subject.status();
  std::vector<DriverRequest> requests;
  for (const GoldenCase& golden : subject->goldens.cases) {
    requests.push_back(GreedyRequest(golden, subject->model.config.vocab_size));
    requests.back().sampling.logprobs.reset();
  }
  absl::StatusOr<std::vector<DriverResult>> results =
      RunTogether(*subject->runner, subject->adapters, requests, subject->driver);
  ASSERT_TRUE(results.ok()) << results.status();
  for (size_t i = 0; i < requests.size(); ++i) {
    const std::vector<int32_t> tokens = (*results)[i].tokens();
    const GoldenCase& golden = subject->goldens.cases[i];
    ASSERT_EQ(tokens.size(), golden.tokens.size()) << golden.name;
    for (size_t step = 0; step < tokens.size() && golden.margins[step] >= kTinyTolerance; ++step) {
      EXPECT_EQ(tokens[step], golden.tokens[step]) << golden.name << " step " << step;
    }
  }
}

// A row that asks for log-probabilities is adjusted and chosen for on the host, another where its
// logits are.
TEST(TokensGoldenTest, AdjustedRowsChooseTheSameWhereverTheyAre) {
  const std::string folder = DataFolder("tiny-llama-tied-bias");
  absl::StatusOr<Subject> subject = MakeSubject(folder, folder + "/model");
  ASSERT_TRUE(subject.ok()) << subject.status();
  std::vector<DriverRequest> requests;
  for (const GoldenCase& golden : subject->goldens.cases) {
    DriverRequest request = GreedyRequest(golden, subject->model.config.vocab_size);
    const auto index = static_cast<int32_t>(requests.size());
    request.sampling.temperature = index % 2 == 0 ? 0.0f : 0.8f;
    request.sampling.seed = static_cast<uint64_t>(index);
    request.sampling.repetition_penalty = 1.3f;
    request.sampling.presence_penalty = 0.5f;
    request.sampling.frequency_penalty = 0.25f;
    request.sampling.logit_bias = {{golden.tokens.front(), -3.0f}, {index, 2.0f}};
    request.sampling.logprobs = 0;
    requests.push_back(request);
  }
  const auto on_host = RunTogether(*subject->runner, subject->adapters, requests, subject->driver);
  ASSERT_TRUE(on_host.ok()) << on_host.status();
  for (DriverRequest& request : requests) {
    request.sampling.logprobs.reset();
  }
  const auto on_device =
      RunTogether(*subject->runner, subject->adapters, requests, subject->driver);
  ASSERT_TRUE(on_device.ok()) << on_device.status();
  int num_changed = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    EXPECT_EQ((*on_device)[i].tokens(), (*on_host)[i].tokens()) << subject->goldens.cases[i].name;
    num_changed += (*on_device)[i].tokens() == subject->goldens.cases[i].tokens ? 0 : 1;
  }
  EXPECT_GT(num_changed, 0) << "the adjustments did nothing";
}

TEST(PreemptionGoldenTest, RecomputedSequencesGiveTheSameTokens) {
  absl::StatusOr<Subject> subject = MakeSubject(DataFolder("tiny-llama-rope-dynamic"),
                                                DataFolder("tiny-llama-rope-dynamic") + "/model");
  ASSERT_TRUE(subject.ok()) << subject.status();
  // 9 cases of up to 72 tokens want 28 blocks of 16; 12 make the younger ones start over.
  subject->driver.num_blocks = 12;
  std::vector<DriverRequest> requests;
  for (const GoldenCase& golden : subject->goldens.cases) {
    requests.push_back(GreedyRequest(golden, subject->model.config.vocab_size));
  }
  absl::StatusOr<std::vector<DriverResult>> results =
      RunTogether(*subject->runner, subject->adapters, requests, subject->driver);
  ASSERT_TRUE(results.ok()) << results.status();
  for (size_t i = 0; i < requests.size(); ++i) {
    ExpectMatches(subject->goldens.cases[i], (*results)[i], kTinyTolerance);
  }
}

TEST(SmolLm2GoldenTest, EveryCaseAloneAndTogetherMatchesTheReference) {
  const char* const model_folder = std::getenv("TENON_TEST_MODEL");
  if (model_folder == nullptr || !std::filesystem::exists(DataFolder("smollm2"))) {
    GTEST_SKIP() << "set TENON_TEST_MODEL to the folder of SmolLM2-135M-Instruct that "
                    "deploy/quickstart/convert_model.py makes";
  }
  absl::StatusOr<Subject> subject = MakeSubject(DataFolder("smollm2"), model_folder);
  ASSERT_TRUE(subject.ok()) << subject.status();
  CheckAllCases(*subject, kRealTolerance, subject->runner->is_batch_invariant(), {97});
}

}  // namespace
}  // namespace tenon
