// The choice of tokens on the device against the sampler of the CPU; on the host, or on a GPU.
#include <ATen/core/Tensor.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include <limits>
#include <random>
#include <vector>

#include "server/kernels/cuda_ops.h"
#include "server/model/sampler.h"
#include "tests/adapters/kernels/kernel_testing.h"
#include "tests/device/test_device.h"

namespace tenon {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

class SamplingCudaTest : public testing::Test {
 protected:
  static SamplingContext ContextOf(const SamplingParams& params,
                                   const std::vector<int32_t>& tokens) {
    SamplingContext context;
    context.params = &params;
    context.tokens = tokens;
    context.num_prompt_tokens = 1;
    return context;
  }

  // Draws `count` times from each row with both, and counts where they differ.
  int CountDifferences(const at::Tensor& logits, const SamplingParams& wanted, int count) {
    Sampler sampler(logits.size(1));
    int different = 0;
    for (int draw = 0; draw < count; ++draw) {
      SamplingParams params = wanted;
      params.seed = static_cast<uint64_t>(draw);
      const std::vector<int32_t> tokens = {0};
      const SamplingContext context = ContextOf(params, tokens);
      EXPECT_TRUE(Sampler::NeedsLogitsAlone(context));
      const std::vector<cuda::RowSampling> rows(
          static_cast<size_t>(logits.size(0)), {Sampler::Uniform(context), params.temperature,
                                                params.top_k, params.top_p, params.min_p});
      const std::vector<cuda::SampledRow> chosen = SampleCuda(logits.to(device_), rows);
      for (int64_t r = 0; r < logits.size(0); ++r) {
        const float* const row = logits.const_data_ptr<float>() + r * logits.size(1);
        const auto expected = sampler.Sample({row, static_cast<size_t>(logits.size(1))}, context);
        EXPECT_TRUE(expected.ok()) << expected.status();
        EXPECT_EQ(chosen[r].status, cuda::SampledStatus::kOk);
        different += chosen[r].token == expected->token ? 0 : 1;
      }
    }
    return different;
  }

  // Logits in steps, so that there are equals at every threshold.
  at::Tensor Coarse(int64_t rows, int64_t vocab) {
    return random_.Normal({rows, vocab}, at::kFloat, 3.0f).mul(2.0).round().div(2.0);
  }

  c10::InferenceMode mode_;
  at::Device device_ = KernelTestDevice().device;
  RandomTensors random_{3};
};

SamplingParams Params(float temperature, int32_t top_k, float top_p, float min_p) {
  SamplingParams params;
  params.temperature = temperature;
  params.top_k = top_k;
  params.top_p = top_p;
  params.min_p = min_p;
  return params;
}

TEST_F(SamplingCudaTest, GreedyTakesTheLowestOfTheLargest) {
  EXPECT_EQ(CountDifferences(Coarse(8, 700), Params(0, 0, 1, 0), 1), 0);
}

TEST_F(SamplingCudaTest, EveryFilterChoosesAsTheCpuDoes) {
  // Equal logits are common: what happens at each threshold's edge is in it.
  const at::Tensor coarse = Coarse(4, 530), fine = random_.Normal({4, 700}, at::kFloat, 3.0f);
  for (const at::Tensor& logits : {coarse, fine}) {
    EXPECT_EQ(CountDifferences(logits, Params(1, 0, 1, 0), 10), 0) << "no filter";
    EXPECT_EQ(CountDifferences(logits, Params(0.7f, 7, 1, 0), 10), 0) << "top_k";
    EXPECT_EQ(CountDifferences(logits, Params(1.3f, 0, 0.8f, 0), 10), 0) << "top_p";
    EXPECT_EQ(CountDifferences(logits, Params(1, 40, 0.5f, 0), 10), 0) << "top_k, top_p";
    EXPECT_EQ(CountDifferences(logits, Params(1, 0, 1, 0.1f), 10), 0) << "min_p";
    EXPECT_EQ(CountDifferences(logits, Params(1, 50, 0.9f, 0.05f), 10), 0) << "all";
    EXPECT_EQ(CountDifferences(logits, Params(1, 0, 1e-6f, 0), 3), 0) << "the best alone";
  }
}

TEST_F(SamplingCudaTest, MaskedTokensAreNotChosen) {
  at::Tensor logits = random_.Normal({2, 600}, at::kFloat);
  logits.narrow(1, 0, 599).fill_(-kInfinity);
  EXPECT_EQ(CountDifferences(logits, Params(1, 0, 1, 0), 2), 0);
  EXPECT_EQ(CountDifferences(logits, Params(1, 5, 0.5f, 0), 2), 0);
}

TEST_F(SamplingCudaTest, BadRowsAreNamedAndOthersAreGood) {
  const at::Tensor logits = random_.Normal({4, 600}, at::kFloat);
  logits.select(0, 0).select(0, 599).fill_(std::numeric_limits<float>::quiet_NaN());
  logits.select(0, 1).select(0, 0).fill_(kInfinity);
  logits.select(0, 2).fill_(-kInfinity);
  const std::vector<cuda::RowSampling> rows(4, {0.5, 1.0f, 0, 1.0f, 0.0f});
  const std::vector<cuda::SampledRow> chosen = SampleCuda(logits.to(device_), rows);
  EXPECT_EQ(chosen[0].status, cuda::SampledStatus::kBadLogits);
  EXPECT_EQ(chosen[1].status, cuda::SampledStatus::kBadLogits);
  EXPECT_EQ(chosen[2].status, cuda::SampledStatus::kNoToken);
  EXPECT_EQ(chosen[3].status, cuda::SampledStatus::kOk);
}

}  // namespace
}  // namespace tenon
