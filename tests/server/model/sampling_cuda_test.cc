// Adjustments and the choice of tokens on the device against the CPU's; on the host, or on a GPU.
#include <ATen/core/Tensor.h>
#include <ATen/ops/equal.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <iterator>
#include <limits>
#include <span>
#include <utility>
#include <vector>

#include "server/kernels/cuda_ops.h"
#include "server/model/logit_adjustments.h"
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

  // The logits on the device, with the row's adjustments in each.
  at::Tensor Adjusted(const at::Tensor& logits, std::span<const SamplingContext> contexts) {
    LogitAdjustments adjustments(logits.size(1));
    for (const SamplingContext& context : contexts) {
      adjustments.Add(static_cast<int32_t>(&context - contexts.data()), context);
    }
    const at::Tensor on_device = logits.to(device_);
    AdjustLogitsCuda(on_device, adjustments.entries());
    return on_device;
  }

  // Draws `count` times from each row with both, and counts where they differ. `tokens` are what
  // came before, the first of them the prompt.
  int CountDifferences(const at::Tensor& logits, const SamplingParams& wanted, int count,
                       const std::vector<int32_t>& tokens = {0}) {
    Sampler sampler(logits.size(1));
    int different = 0;
    for (int draw = 0; draw < count; ++draw) {
      SamplingParams params = wanted;
      params.seed = static_cast<uint64_t>(draw);
      const SamplingContext context = ContextOf(params, tokens);
      const auto num_rows = static_cast<size_t>(logits.size(0));
      const std::vector<cuda::RowSampling> rows(
          num_rows, {Sampler::Uniform(context), params.temperature, params.top_k, params.top_p,
                     params.min_p});
      const std::vector<SamplingContext> contexts(num_rows, context);
      const std::vector<cuda::SampledRow> chosen = SampleCuda(Adjusted(logits, contexts), rows);
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

// Some of everything that adjusts logits, among it ids that are not in the vocabulary.
SamplingParams RandomAdjustments(RandomTensors& random, int32_t vocab) {
  SamplingParams params;
  params.repetition_penalty = random.Between(0, 1) == 0 ? 1.0f : 1.7f;
  params.presence_penalty = random.Between(0, 1) == 0 ? 0.0f : -0.3f;
  params.frequency_penalty = random.Between(0, 1) == 0 ? 0.0f : 0.7f;
  params.stop_token_ids = {3, vocab - 1, vocab, -1};
  params.min_tokens = static_cast<int32_t>(random.Between(0, 30));
  for (int32_t token = -1; token <= vocab; token += static_cast<int32_t>(random.Between(1, 9))) {
    params.logit_bias.emplace_back(token, 0.37f * static_cast<float>(token % 7 - 3));
  }
  return params;
}

// Sampler's steps 1 to 4, token by token.
float AdjustedLogit(float logit, int32_t token, const SamplingContext& context) {
  const SamplingParams& params = *context.params;
  const auto generated = context.tokens.subspan(static_cast<size_t>(context.num_prompt_tokens));
  for (const auto& [biased, bias] : params.logit_bias) {
    logit += biased == token ? bias : 0.0f;
  }
  if (std::count(context.tokens.begin(), context.tokens.end(), token) > 0) {
    logit = logit < 0 ? logit * params.repetition_penalty : logit / params.repetition_penalty;
  }
  if (const auto count = std::count(generated.begin(), generated.end(), token); count > 0) {
    logit -= params.presence_penalty + params.frequency_penalty * static_cast<float>(count);
  }
  const bool stops =
      std::count(params.stop_token_ids.begin(), params.stop_token_ids.end(), token) > 0;
  return stops && std::ssize(generated) < params.min_tokens ? -kInfinity : logit;
}

TEST_F(SamplingCudaTest, AdjustedLogitsHaveTheBitsOfTheEquation) {
  constexpr int32_t kVocab = 701;
  for (int round = 0; round < 10; ++round) {
    const int64_t rows = random_.Between(1, 6);
    const at::Tensor logits = Coarse(rows, kVocab);
    std::vector<SamplingParams> params;
    std::vector<std::vector<int32_t>> tokens(static_cast<size_t>(rows));
    for (std::vector<int32_t>& history : tokens) {
      params.push_back(RandomAdjustments(random_, kVocab));
      history.resize(static_cast<size_t>(random_.Between(1, 40)));
      for (int32_t& token : history) {
        token = static_cast<int32_t>(random_.Between(0, 20));
      }
    }
    std::vector<SamplingContext> contexts;
    at::Tensor expected = logits.clone();
    for (int64_t r = 0; r < rows; ++r) {
      contexts.push_back(ContextOf(params[r], tokens[r]));
      float* const row = expected.mutable_data_ptr<float>() + r * kVocab;
      for (int32_t token = 0; token < kVocab; ++token) {
        row[token] = AdjustedLogit(row[token], token, contexts.back());
      }
    }
    EXPECT_TRUE(at::equal(Adjusted(logits, contexts).cpu(), expected)) << "round " << round;
  }
}

TEST_F(SamplingCudaTest, AdjustedRowsChooseAsTheCpuDoes) {
  const at::Tensor logits = random_.Normal({3, 700}, at::kFloat, 3.0f);
  std::vector<int32_t> tokens;
  for (int i = 0; i < 300; ++i) {
    tokens.push_back(static_cast<int32_t>(random_.Between(0, 699)));
  }
  for (const float temperature : {0.0f, 1.2f}) {
    for (int round = 0; round < 4; ++round) {
      SamplingParams params = RandomAdjustments(random_, 700);
      params.temperature = temperature;
      params.top_p = 0.9f;
      EXPECT_EQ(CountDifferences(logits, params, 3, tokens), 0) << "round " << round;
    }
  }
}

TEST_F(SamplingCudaTest, OtherRowsAndTokensKeepTheirBits) {
  const at::Tensor logits = random_.Normal({3, 600}, at::kFloat), on_device = logits.to(device_);
  const cuda::LogitAdjustment entries[] = {{1, 599, 2.0f, 1.0f, 0.0f}, {1, 0, 0.0f, 2.0f, 1.0f}};
  AdjustLogitsCuda(on_device, entries);
  const at::Tensor after = on_device.cpu();
  EXPECT_TRUE(SameBits(after.select(0, 0), logits.select(0, 0)));
  EXPECT_TRUE(SameBits(after.select(0, 2), logits.select(0, 2)));
  EXPECT_TRUE(SameBits(after.narrow(1, 1, 598), logits.narrow(1, 1, 598)));
  EXPECT_EQ(after.const_data_ptr<float>()[1199], logits.const_data_ptr<float>()[1199] + 2.0f);
}

TEST_F(SamplingCudaTest, AdjustmentsOfLogitsThatAreNotThereThrow) {
  const at::Tensor logits = random_.Normal({2, 600}, at::kFloat).to(device_);
  for (const auto& [row, token] : {std::pair(2, 0), std::pair(-1, 0), std::pair(0, 600)}) {
    const cuda::LogitAdjustment entry = {row, token, 1.0f, 1.0f, 0.0f};
    EXPECT_THROW(AdjustLogitsCuda(logits, {&entry, 1}), c10::Error);
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
