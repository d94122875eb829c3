// Every method's goldens (make_matrix.sh) on the architectures that load, cell by cell: what the
// compilers make of an adapter and what the forward pass makes of that.
#include <ATen/Parallel.h>
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
#include "adapters/base/status_macros.h"
#include "server/model/decoder_runner.h"
#include "server/model/model.h"
#include "tests/golden/adapter_files.h"
#include "tests/golden/golden_files.h"
#include "tests/golden/matrix_table.h"
#include "tests/golden/step_driver.h"
#include "tests/source_dir.h"

namespace tenon {
namespace {

constexpr float kTolerance = 1e-4f;

std::string DataFolder(const std::string& name) {
  return SourcePath(absl::StrCat("tests/golden/data/matrix/", name));
}

std::string MethodOf(const GoldenCase& golden) {
  return golden.name.substr(0, golden.name.rfind('/'));
}

// Where Tenon's composition is not PEFT's. There DoRA takes what earlier adapters added for W x, so
// that the order matters, and a weight changes the norm but not the magnitude, so that weight 0 is
// not the base.
bool ComputedAnotherWay(const std::string& method) {
  return method == "dora-last" || method == "dora-twice" || method == "dora-scaled";
}

// Shared by the tests of this program, which run in order; TheMatrix is the last.
MatrixTable& Table() {
  static MatrixTable* const table = new MatrixTable(*MatrixTable::Load(DataFolder("matrix.json")));
  return *table;
}

std::string LibraryOf(absl::string_view folder) {
  return folder == "composition" ? "peft-composition" : std::string(folder);
}

class MethodsGoldenTest : public testing::TestWithParam<std::pair<const char*, const char*>> {
 protected:
  void SetUp() override {
    at::set_num_threads(1);
    const std::string architecture = GetParam().first, library = GetParam().second;
    ModelOptions options;
    options.dtype = at::kFloat;
    absl::StatusOr<Model> model = LoadModel(DataFolder(architecture + "/model"), options);
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
    driver_.max_context_tokens = model_.config.max_position_embeddings;
    absl::StatusOr<Goldens> goldens =
        LoadGoldens(DataFolder(absl::StrCat(architecture, "/", library)), SourcePath(""));
    ASSERT_TRUE(goldens.ok()) << goldens.status();
    goldens_ = *std::move(goldens);
    runner_ = *DecoderRunner::Create(model_.decoder, driver_.num_blocks, driver_.block_size,
                                     driver_.max_context_tokens);
    runner_->set_poison_freed_blocks(true);
  }

  /// Fills adapters_; leaves in goldens_ the cases whose adapters compiled.
  void CompileAll() {
    for (const auto& [name, path] : goldens_.adapters) {
      const auto adapter = CompileAdapterFolder(path, model_.base, model_.dtype);
      EXPECT_TRUE(adapter.ok()) << name << ": " << adapter.status();
      if (adapter.ok()) {
        adapters_[name] = *adapter;
      }
    }
    std::erase_if(goldens_.cases, [this](const GoldenCase& golden) {
      return !golden.adapter.empty() && !adapters_.contains(golden.adapter);
    });
  }

  DriverRequest RequestOf(const GoldenCase& golden) const {
    DriverRequest request;
    request.adapter = golden.adapter;
    request.selection = golden.selection;
    request.prompt = golden.prompt;
    request.sampling.temperature = 0;
    request.sampling.max_tokens = static_cast<int32_t>(golden.tokens.size());
    request.sampling.logprobs = static_cast<int32_t>(model_.config.vocab_size);
    return request;
  }

  DriverOptions driver_;
  Model model_;
  Goldens goldens_;
  AdapterMap adapters_;
  std::unique_ptr<DecoderRunner> runner_;
};

float LargestDifference(const GoldenCase& golden, const DriverResult& result) {
  float largest = 0;
  for (size_t step = 0; step < golden.logprobs.size(); ++step) {
    for (const TokenLogprob& top : result.steps[step].top_logprobs) {
      largest = std::max(largest, std::abs(top.logprob - golden.logprobs[step][top.token]));
    }
  }
  return largest;
}

TEST_P(MethodsGoldenTest, EveryCellInOneBatchMatchesTheReferenceAndItself) {
  CompileAll();
  std::vector<DriverRequest> requests;
  for (const GoldenCase& golden : goldens_.cases) {
    requests.push_back(RequestOf(golden));
  }
  const auto together = RunTogether(*runner_, adapters_, requests, driver_);
  ASSERT_TRUE(together.ok()) << together.status();
  std::map<std::string, float> worst;
  for (size_t i = 0; i < requests.size(); ++i) {
    const GoldenCase& golden = goldens_.cases[i];
    const DriverResult& result = (*together)[i];
    const float difference = LargestDifference(golden, result);
    worst[MethodOf(golden)] = std::max(worst[MethodOf(golden)], difference);
    if (ComputedAnotherWay(MethodOf(golden))) {
      EXPECT_TRUE(Table().RecordDifferent(GetParam().first, LibraryOf(GetParam().second),
                                          MethodOf(golden)));
      continue;
    }
    EXPECT_LE(difference, kTolerance) << golden.name;
    EXPECT_EQ(result.tokens(), golden.tokens) << golden.name;
    EXPECT_TRUE(Table().Record(GetParam().first, LibraryOf(GetParam().second), MethodOf(golden),
                               difference <= kTolerance && result.tokens() == golden.tokens))
        << golden.name;
    const auto alone = RunTogether(*runner_, adapters_, {requests[i]}, driver_);
    ASSERT_TRUE(alone.ok()) << alone.status();
    for (size_t step = 0; step < golden.tokens.size(); ++step) {
      ASSERT_EQ(alone->front().steps[step].logprob, result.steps[step].logprob)
          << golden.name << " step " << step;
    }
  }
  for (const auto& [method, difference] : worst) {
    std::cout << method << " " << difference << "\n";
  }
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

INSTANTIATE_TEST_SUITE_P(All, MethodsGoldenTest, testing::ValuesIn(AllColumns()),
                         [](const auto& test) {
                           return absl::StrCat(test.param.first, "_", test.param.second);
                         });

// Prints the table behind the last test, and counts it unless a filter left some out.
class MatrixReport : public testing::Environment {
 public:
  void TearDown() override {
    std::cout << Table().Print();
    if (testing::GTEST_FLAG(filter) == "*") {
      EXPECT_EQ(Table().num_passed() + Table().num_different(), Table().num_goldens());
      EXPECT_EQ(Table().num_different(), 3u);
    }
  }
};
const testing::Environment* const kReport =
    testing::AddGlobalTestEnvironment(new MatrixReport);  // NOLINT: GoogleTest owns it

}  // namespace
}  // namespace tenon
