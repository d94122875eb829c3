#include "server/model/sampler.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <set>
#include <vector>

#include "server/model/philox.h"

namespace tenon {
namespace {

using ::testing::ElementsAre;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

SamplingParams Greedy() {
  SamplingParams params;
  params.temperature = 0;
  return params;
}

// One row: logits, what came before, how many of it is the prompt.
struct Row {
  std::vector<float> logits;
  std::vector<int32_t> tokens = {0};
  int64_t num_prompt_tokens = 1;
};

absl::StatusOr<SampledToken> Sample(const Row& row, const SamplingParams& params,
                                    int32_t sample_index = 0) {
  Sampler sampler(static_cast<int64_t>(row.logits.size()));
  SamplingContext context;
  context.params = &params;
  context.tokens = row.tokens;
  context.num_prompt_tokens = row.num_prompt_tokens;
  context.sample_index = sample_index;
  return sampler.Sample(row.logits, context);
}

int32_t Token(const Row& row, const SamplingParams& params) {
  absl::StatusOr<SampledToken> sampled = Sample(row, params);
  EXPECT_TRUE(sampled.ok()) << sampled.status();
  return sampled.ok() ? sampled->token : -1;
}

// Frequencies of `draws` samples, each with its own seed.
std::vector<double> Frequencies(const Row& row, SamplingParams params, int draws) {
  std::vector<double> frequencies(row.logits.size());
  for (int i = 0; i < draws; ++i) {
    params.seed = static_cast<uint64_t>(i);
    frequencies[Token(row, params)] += 1.0 / draws;
  }
  return frequencies;
}

std::vector<float> LogsOf(const std::vector<float>& probabilities) {
  std::vector<float> logits;
  for (const float probability : probabilities) {
    logits.push_back(std::log(probability) + 3.0f);
  }
  return logits;
}

// Known answers of Random123's kat_vectors.
TEST(PhiloxTest, EqualsThePublishedVectors) {
  EXPECT_THAT(Philox4x32({0, 0, 0, 0}, {0, 0}),
              ElementsAre(0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8));
  EXPECT_THAT(Philox4x32({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}),
              ElementsAre(0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd));
  EXPECT_THAT(
      Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
      ElementsAre(0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1));
}

TEST(PhiloxTest, UniformFillsTheUnitInterval) {
  double sum = 0;
  double smallest = 1;
  double largest = 0;
  constexpr int kDraws = 10000;
  for (int i = 0; i < kDraws; ++i) {
    const double value = PhiloxUniform(42, 0, static_cast<uint64_t>(i));
    sum += value;
    smallest = std::min(smallest, value);
    largest = std::max(largest, value);
  }
  EXPECT_GE(smallest, 0.0);
  EXPECT_LT(largest, 1.0);
  EXPECT_LT(smallest, 0.001);
  EXPECT_GT(largest, 0.999);
  EXPECT_NEAR(sum / kDraws, 0.5, 0.01);
}

TEST(SamplerTest, GreedyTakesTheLowestIdOfEquals) {
  EXPECT_EQ(Token({{1.0f, 3.0f, 2.0f, 3.0f}}, Greedy()), 1);
}

TEST(SamplerTest, GreedyChoiceIsTheSameWithoutAndWithAdjustmentsThatDoNothing) {
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  SamplingParams adjusted = Greedy();
  adjusted.logit_bias = {{0, 0.0f}};
  for (const size_t size : {1u, 2u, 63u, 1000u}) {
    Row row;
    for (size_t i = 0; i < size; ++i) {
      row.logits.push_back(normal(random));
    }
    EXPECT_EQ(Token(row, Greedy()), Token(row, adjusted)) << size;
  }
}

TEST(SamplerTest, GreedyWithoutATokenToChooseIsAnError) {
  EXPECT_EQ(Sample({{-kInfinity, -kInfinity}}, Greedy()).status().code(),
            absl::StatusCode::kInternal);
}

TEST(SamplerTest, DrawsFollowTheDistribution) {
  const std::vector<double> frequencies =
      Frequencies({LogsOf({0.5f, 0.3f, 0.15f, 0.05f})}, SamplingParams{}, 20000);
  EXPECT_NEAR(frequencies[0], 0.5, 0.015);
  EXPECT_NEAR(frequencies[1], 0.3, 0.015);
  EXPECT_NEAR(frequencies[2], 0.15, 0.015);
  EXPECT_NEAR(frequencies[3], 0.05, 0.01);
}

TEST(SamplerTest, TemperatureSharpensTheDistribution) {
  SamplingParams params;
  params.temperature = 0.5f;  // squares the odds: 0.36 to 0.16 of 0.52
  const std::vector<double> frequencies = Frequencies({LogsOf({0.6f, 0.4f})}, params, 20000);
  EXPECT_NEAR(frequencies[0], 0.36 / 0.52, 0.015);
}

TEST(SamplerTest, TinyTemperatureIsGreedyAndDoesNotOverflow) {
  SamplingParams params;
  params.temperature = 1e-38f;
  EXPECT_EQ(Token({{1.0f, 90.0f, 89.9f, -3e38f}}, params), 1);
}

TEST(SamplerTest, TopKKeepsTheBestAndTheirEquals) {
  SamplingParams params;
  params.top_k = 2;
  const std::vector<double> frequencies = Frequencies({{2.0f, 1.0f, 1.0f, 0.9f}}, params, 3000);
  EXPECT_GT(frequencies[0], 0);
  EXPECT_GT(frequencies[1], 0);
  EXPECT_GT(frequencies[2], 0);  // equal to the second best
  EXPECT_EQ(frequencies[3], 0);
}

TEST(SamplerTest, TopPKeepsTheSmallestSetWithTheMass) {
  SamplingParams params;
  params.top_p = 0.75f;
  const std::vector<double> frequencies =
      Frequencies({LogsOf({0.1f, 0.5f, 0.3f, 0.1f})}, params, 20000);
  EXPECT_EQ(frequencies[0], 0);
  EXPECT_NEAR(frequencies[1], 0.5 / 0.8, 0.015);
  EXPECT_NEAR(frequencies[2], 0.3 / 0.8, 0.015);
  EXPECT_EQ(frequencies[3], 0);
  params.top_p = 1e-6f;  // the best always stays
  EXPECT_NEAR(Frequencies({LogsOf({0.1f, 0.5f, 0.3f, 0.1f})}, params, 100)[1], 1.0, 1e-9);
}

// The selection grows by doubling and never sorts all; a full sort must keep the same tokens.
TEST(SamplerTest, TopPOverManyTokensEqualsAFullSort) {
  constexpr int kVocab = 1000;
  constexpr double kTopP = 0.8;
  std::mt19937 random(7);
  std::normal_distribution<float> normal;
  std::vector<std::pair<double, int32_t>> sorted;
  Row row;
  double total = 0;
  for (int32_t i = 0; i < kVocab; ++i) {
    row.logits.push_back(normal(random));
    sorted.push_back({std::exp(static_cast<double>(row.logits.back())), i});
    total += sorted.back().first;
  }
  std::sort(sorted.rbegin(), sorted.rend());
  std::set<int32_t> kept;
  for (double mass = 0; mass < kTopP * total;) {
    mass += sorted[kept.size()].first;
    kept.insert(sorted[kept.size()].second);
  }
  SamplingParams params;
  params.top_p = static_cast<float>(kTopP);
  std::set<int32_t> seen;
  for (uint64_t seed = 0; seed < 5000; ++seed) {
    params.seed = seed;
    seen.insert(Token(row, params));
  }
  EXPECT_TRUE(std::includes(kept.begin(), kept.end(), seen.begin(), seen.end()));
  EXPECT_GT(seen.size(), kept.size() * 3 / 4);
}

TEST(SamplerTest, MinPIsRelativeToTheBest) {
  SamplingParams params;
  params.min_p = 0.5f;
  const std::vector<double> frequencies = Frequencies({LogsOf({0.5f, 0.3f, 0.2f})}, params, 3000);
  EXPECT_GT(frequencies[1], 0);
  EXPECT_EQ(frequencies[2], 0);
}

TEST(SamplerTest, RepetitionPenaltyCoversPromptAndGenerated) {
  SamplingParams params = Greedy();
  params.repetition_penalty = 2.0f;
  // Token 0 is in the prompt (4 / 2), token 1 generated (-0.5 * 2), token 2 new.
  EXPECT_EQ(Token({{4.0f, -0.5f, 2.5f}, {0, 0, 1}, 2}, params), 2);
  EXPECT_EQ(Token({{-1.0f, -1.5f, -9.0f}, {0}, 1}, params), 1);
}

TEST(SamplerTest, PresenceAndFrequencyPenaltiesCountGeneratedTokensOnly) {
  SamplingParams params = Greedy();
  params.presence_penalty = 1.0f;
  EXPECT_EQ(Token({{3.0f, 2.5f}, {0, 0, 0}, 3}, params), 0);   // prompt only: no penalty
  EXPECT_EQ(Token({{3.0f, 2.5f}, {1, 0, 0}, 1}, params), 1);   // 3 - 1 once
  EXPECT_EQ(Token({{3.75f, 2.5f}, {1, 0, 0}, 1}, params), 0);  // still once for two
  params.presence_penalty = 0;
  params.frequency_penalty = 0.75f;
  EXPECT_EQ(Token({{3.75f, 2.5f}, {1, 0, 0}, 1}, params), 1);  // 3.75 - 2 * 0.75
}

TEST(SamplerTest, PenaltiesLeaveNothingBehindForTheNextRow) {
  Sampler sampler(3);
  SamplingParams penalized = Greedy();
  penalized.frequency_penalty = 2.0f;
  penalized.repetition_penalty = 1.5f;
  const std::vector<int32_t> tokens = {0, 0, 0, 1};
  const std::vector<float> logits = {3.0f, 2.0f, 1.0f};
  SamplingContext context{&penalized, tokens, 1, 0};
  EXPECT_EQ(sampler.Sample(logits, context)->token, 2);
  EXPECT_EQ(sampler.Sample(logits, context)->token, 2);  // the counts began at zero again
  const SamplingParams plain = Greedy();
  context.params = &plain;
  EXPECT_EQ(sampler.Sample(logits, context)->token, 0);
}

TEST(SamplerTest, LogitBiasAddsAndIgnoresForeignIds) {
  SamplingParams params = Greedy();
  params.logit_bias = {{2, 5.0f}, {-1, 9.0f}, {99, 9.0f}};
  EXPECT_EQ(Token({{3.0f, 2.0f, 1.0f}}, params), 2);
}

TEST(SamplerTest, StopTokensAreMaskedBeforeMinTokens) {
  SamplingParams params = Greedy();
  params.stop_token_ids = {1, 500};
  params.min_tokens = 2;
  EXPECT_EQ(Token({{0.0f, 5.0f, 1.0f}, {0, 2}, 1}, params), 2);     // one generated
  EXPECT_EQ(Token({{0.0f, 5.0f, 1.0f}, {0, 2, 2}, 1}, params), 1);  // two generated
}

TEST(SamplerTest, SameSeedAndIndexGiveTheSameToken) {
  Row row{std::vector<float>(1000, 0.0f)};
  SamplingParams params;
  params.seed = 99;
  const int32_t first = Token(row, params);
  EXPECT_EQ(Token(row, params), first);
  // Another seed, another sample of the same request, or another place in the text: other numbers.
  std::set<int32_t> others = {first, Sample(row, params, 1)->token};
  row.tokens = {0, 5};
  others.insert(Token(row, params));
  params.seed = 100;
  others.insert(Token(row, params));
  EXPECT_EQ(others.size(), 4u);
}

TEST(SamplerTest, DamagedLogitsFailTheRow) {
  for (const float bad : {std::nanf(""), kInfinity}) {
    const absl::Status status = Sample({{1.0f, bad, 0.0f}}, SamplingParams{}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
    EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("token 1"));
  }
  EXPECT_EQ(Sample({{-kInfinity, -kInfinity}}, Greedy()).status().code(),
            absl::StatusCode::kInternal);
  EXPECT_EQ(Token({{-kInfinity, 1.0f}}, SamplingParams{}), 1);  // a masked token is no damage
}

TEST(SamplerTest, LogprobsAreOfTheUnmodifiedLogits) {
  SamplingParams params = Greedy();
  params.logprobs = 2;
  params.logit_bias = {{2, 50.0f}};
  const absl::StatusOr<SampledToken> sampled =
      Sample({LogsOf({0.5f, 0.25f, 0.125f, 0.125f})}, params);
  ASSERT_TRUE(sampled.ok()) << sampled.status();
  EXPECT_EQ(sampled->token, 2);
  EXPECT_NEAR(sampled->logprob, std::log(0.125), 1e-6);
  ASSERT_EQ(sampled->top_logprobs.size(), 2u);
  EXPECT_EQ(sampled->top_logprobs[0].token, 0);
  EXPECT_NEAR(sampled->top_logprobs[1].logprob, std::log(0.25), 1e-6);
}

TEST(SamplerTest, TopLogprobsAreCappedByTheVocabularyAndOrderedById) {
  const std::vector<float> logits = {0.0f, 1.0f, 1.0f};
  const SampledToken scored = Sampler::Score(logits, 0, 10);
  ASSERT_EQ(scored.top_logprobs.size(), 3u);
  EXPECT_EQ(scored.top_logprobs[0].token, 1);
  EXPECT_EQ(scored.top_logprobs[1].token, 2);
  EXPECT_TRUE(Sampler::Score(logits, 0, 0).top_logprobs.empty());
}

}  // namespace
}  // namespace tenon
