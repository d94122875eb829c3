// GenerateRequest.deterministic: the same bits whatever the neighbours, chunks and preemptions.
#include <gtest/gtest.h>

#include <algorithm>
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "adapters/kernels/parallel.h"
#include "server/model/decoder_runner.h"
#include "server/model/model.h"
#include "tests/golden/adapter_files.h"
#include "tests/golden/golden_files.h"
#include "tests/golden/step_driver.h"
#include "tests/source_dir.h"

namespace tenon {
namespace {

constexpr int kNumRequests = 200;
constexpr int64_t kMaxContextTokens = 256;

/// The tiny Llama with adapters of every method, over a KV pool that poisons what is freed.
class DeterminismTest : public testing::TestWithParam<at::ScalarType> {
 protected:
  void SetUp() override {
    SetNumKernelThreads(1);
    const std::string folder = SourcePath("tests/golden/data/matrix/llama/");
    ModelOptions options;
    options.dtype = GetParam();
    absl::StatusOr<Model> model = LoadModel(folder + "model", options);
    ASSERT_TRUE(model.ok()) << model.status();
    model_ = *std::move(model);
    for (const char* library : {"peft", "adapterhub"}) {
      absl::StatusOr<Goldens> goldens = LoadGoldens(folder + library, SourcePath(""));
      ASSERT_TRUE(goldens.ok()) << goldens.status();
      for (const auto& [name, path] : goldens->adapters) {
        auto compiled = CompileAdapterFolder(path, model_.base, model_.dtype);
        ASSERT_TRUE(compiled.ok()) << name << ": " << compiled.status();
        adapters_[name] = *compiled;
        names_.push_back(name);
      }
    }
    ASSERT_GE(names_.size(), 20u);
  }

  int64_t Draw(int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(random_);
  }

  /// A sampled request of some adapter, several at once, or the base.
  DriverRequest RandomRequest() {
    DriverRequest request;
    const int64_t kind = Draw(0, 9);
    if (kind > 1) {
      request.adapter = names_[Draw(0, static_cast<int64_t>(names_.size()) - 1)];
    }
    request.prompt.resize(Draw(1, 90));
    std::generate(request.prompt.begin(), request.prompt.end(),
                  [&] { return static_cast<int32_t>(Draw(3, model_.config.vocab_size - 1)); });
    if (Draw(0, 3) == 0) {  // so that prefixes are shared
      std::fill_n(request.prompt.begin(), std::min<size_t>(request.prompt.size(), 48), 7);
    }
    request.sampling.temperature = 0.5f + 0.1f * static_cast<float>(Draw(0, 10));
    request.sampling.top_p = Draw(0, 1) == 0 ? 1.0f : 0.95f;
    request.sampling.repetition_penalty = Draw(0, 3) == 0 ? 1.1f : 1.0f;
    request.sampling.seed = random_();
    request.sampling.max_tokens = static_cast<int32_t>(Draw(4, 24));
    request.sampling.logprobs = 3;
    return request;
  }

  DriverOptions Generous() const {
    DriverOptions options;
    options.num_blocks = 64;
    options.max_context_tokens = kMaxContextTokens;
    return options;
  }

  std::unique_ptr<DecoderRunner> Runner(int64_t num_blocks) const {
    auto runner = DecoderRunner::Create(model_.decoder, num_blocks, 16, kMaxContextTokens);
    EXPECT_TRUE(runner.ok()) << runner.status();
    EXPECT_TRUE((*runner)->is_batch_invariant());
    (*runner)->set_poison_freed_blocks(true);
    return *std::move(runner);
  }

  std::vector<DriverResult> Run(const std::vector<DriverRequest>& requests,
                                const DriverOptions& options) {
    const std::unique_ptr<DecoderRunner> runner = Runner(options.num_blocks);
    auto results = RunTogether(*runner, adapters_, requests, options);
    EXPECT_TRUE(results.ok()) << results.status();
    return results.ok() ? *std::move(results) : std::vector<DriverResult>(requests.size());
  }

  static void ExpectSameBits(const DriverResult& solo, const DriverResult& batched) {
    ASSERT_EQ(solo.steps.size(), batched.steps.size());
    for (size_t i = 0; i < solo.steps.size(); ++i) {
      ASSERT_EQ(solo.steps[i].token, batched.steps[i].token) << "step " << i;
      ASSERT_EQ(solo.steps[i].logprob, batched.steps[i].logprob) << "step " << i;
      ASSERT_EQ(solo.steps[i].top_logprobs.size(), batched.steps[i].top_logprobs.size());
      for (size_t k = 0; k < solo.steps[i].top_logprobs.size(); ++k) {
        ASSERT_EQ(solo.steps[i].top_logprobs[k].token, batched.steps[i].top_logprobs[k].token);
        ASSERT_EQ(solo.steps[i].top_logprobs[k].logprob, batched.steps[i].top_logprobs[k].logprob);
      }
    }
  }

  std::mt19937_64 random_{20260307};
  Model model_;
  AdapterMap adapters_;
  std::vector<std::string> names_;
};

TEST_P(DeterminismTest, AnswersDoNotDependOnTheBatch) {
  std::vector<DriverRequest> requests(kNumRequests);
  std::generate(requests.begin(), requests.end(), [&] { return RandomRequest(); });
  std::vector<DriverResult> solo;
  for (const DriverRequest& request : requests) {
    solo.push_back(Run({request}, Generous())[0]);
  }
  DriverStats stats;
  for (size_t begin = 0; begin < requests.size();) {
    const size_t count = std::min<size_t>(Draw(1, 12), requests.size() - begin);
    std::vector<DriverRequest> batch(requests.begin() + static_cast<int64_t>(begin),
                                     requests.begin() + static_cast<int64_t>(begin + count));
    for (int64_t i = Draw(0, 32 - static_cast<int64_t>(count)); i > 0; --i) {
      batch.push_back(RandomRequest());
    }
    DriverOptions options = Generous();
    options.num_blocks = Draw(12, 24);  // what the longest needs, or not much more
    options.max_batch_tokens = Draw(64, 200);
    options.prefix_cache = Draw(0, 1) == 1;
    options.stats = &stats;
    const std::vector<DriverResult> together = Run(batch, options);
    for (size_t i = 0; i < count; ++i) {
      SCOPED_TRACE(testing::Message()
                   << "request " << begin + i << ", adapter " << requests[begin + i].adapter << ", "
                   << batch.size() << " in the batch");
      ASSERT_NO_FATAL_FAILURE(ExpectSameBits(solo[begin + i], together[i]));
    }
    begin += count;
  }
  std::cout << kNumRequests << " requests in " << toString(GetParam()) << ", "
            << stats.num_preemptions << " preemptions, " << stats.num_chunks
            << " prompts cut in chunks: the same bits as alone\n";
  EXPECT_GT(stats.num_preemptions, 100) << "the pools are too large to test anything";
  EXPECT_GT(stats.num_chunks, 50);
}

INSTANTIATE_TEST_SUITE_P(Dtypes, DeterminismTest, testing::Values(at::kFloat, at::kBFloat16),
                         [](const auto& dtype) { return std::string(toString(dtype.param)); });

TEST(DeterminismOptionTest, ReferenceKernelsDoNotPromiseIt) {
  ModelOptions options;
  options.kernels = KernelKind::kReference;
  absl::StatusOr<Model> model =
      LoadModel(SourcePath("tests/golden/data/tiny-llama/model"), options);
  ASSERT_TRUE(model.ok()) << model.status();
  const auto runner = DecoderRunner::Create(model->decoder, 4, 16, 64);
  ASSERT_TRUE(runner.ok()) << runner.status();
  EXPECT_FALSE((*runner)->is_batch_invariant());
}

}  // namespace
}  // namespace tenon
