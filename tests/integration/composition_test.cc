// Several adapters, weights and virtual tokens in one request, through the real binary.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/integration/server_fixture.h"

namespace tenon {
namespace {

using ::testing::HasSubstr;

constexpr int kHidden = 64;  // of the tiny model

constexpr char kGreedy[] =
    "prompt: 'hello world' sampling { temperature: 0 } "
    "stopping { max_tokens: 16 ignore_eos: true } output { token_ids: true logprobs: 4 }";

// A prompt-tuning adapter as PEFT saves it.
std::map<std::string, std::string> SoftPromptFiles(int num_tokens, float phase) {
  std::vector<float> values(static_cast<size_t>(num_tokens) * kHidden);
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = 0.5f * std::sin(phase + 0.7f * static_cast<float>(i));
  }
  const size_t num_bytes = values.size() * sizeof(float);
  const std::string header =
      absl::StrCat(R"({"prompt_embeddings":{"dtype":"F32","shape":[)", num_tokens, ",", kHidden,
                   R"(],"data_offsets":[0,)", num_bytes, "]}}");
  const uint64_t header_bytes = header.size();
  std::string file(sizeof(header_bytes), '\0');
  std::memcpy(file.data(), &header_bytes, sizeof(header_bytes));
  file += header;
  file.append(reinterpret_cast<const char*>(values.data()), num_bytes);
  return {{"adapter_config.json",
           absl::StrCat(R"({"peft_type":"PROMPT_TUNING","task_type":"CAUSAL_LM",)",
                        R"("num_virtual_tokens":)", num_tokens, R"(,"token_dim":)", kHidden,
                        R"(,"num_transformer_submodules":1})")},
          {"adapter_model.safetensors", file}};
}

class CompositionTest : public ServerTest {
 protected:
  void SetUp() override {
    Start();
    UploadTiny("plain-qv", "fr");
    UploadTiny("rslora", "polite");
  }
  v1::Adapter UploadSoftPrompt(const std::string& name, int num_tokens, float phase = 0) {
    v1::UploadAdapterResponse response;
    const grpc::Status status =
        Upload(UploadMessages(name, SoftPromptFiles(num_tokens, phase)), &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response.adapter();
  }
  v1::Sample Answer(const std::string& adapters) {
    return Generate(absl::StrCat(kGreedy, adapters)).samples(0);
  }
  void ExpectBadField(const std::string& adapters, const std::string& field) {
    const grpc::Status status = StatusOf(absl::StrCat(kGreedy, adapters));
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT) << adapters;
    const auto bad = FindDetail<google::rpc::BadRequest>(status);
    ASSERT_TRUE(bad.has_value()) << adapters;
    EXPECT_EQ(bad->field_violations(0).field(), field);
  }
};

/// Equal tokens with equal log-probabilities, bit for bit.
void ExpectSame(const v1::Sample& actual, const v1::Sample& expected) {
  ASSERT_EQ(actual.logprobs_size(), expected.logprobs_size());
  for (int i = 0; i < actual.logprobs_size(); ++i) {
    EXPECT_EQ(actual.logprobs(i).ShortDebugString(), expected.logprobs(i).ShortDebugString()) << i;
  }
}

bool SameLogprobs(const v1::Sample& a, const v1::Sample& b) {
  return a.logprobs(0).ShortDebugString() == b.logprobs(0).ShortDebugString();
}

TEST_F(CompositionTest, WeightZeroIsTheBaseAndIsReported) {
  const v1::Sample zero = Answer(" adapters { adapter: 'fr' weight: 0 }");
  ExpectSame(zero, Answer(""));
  ASSERT_EQ(zero.finish().adapters_size(), 1);
  EXPECT_EQ(zero.finish().adapters(0).name(), "fr");
  EXPECT_EQ(zero.finish().adapters(0).weight(), 0.0f);
}

TEST_F(CompositionTest, OneAdapterWithWeightOneIsThatAdapter) {
  const v1::Sample alone = Answer(" adapter: 'fr'");
  EXPECT_EQ(alone.finish().adapters(0).weight(), 1.0f);
  ExpectSame(Answer(" adapters { adapter: 'fr' }"), alone);
  ExpectSame(Answer(" adapters { adapter: 'fr@1' weight: 1 } "
                    "adapters { adapter: 'polite' weight: 0 }"),
             alone);
}

TEST_F(CompositionTest, WeightsAndOtherAdaptersChangeTheAnswer) {
  const v1::Sample one = Answer(" adapter: 'fr'");
  EXPECT_FALSE(SameLogprobs(Answer(" adapters { adapter: 'fr' weight: 0.5 }"), one));
  const v1::Sample both = Answer(" adapters { adapter: 'fr' } adapters { adapter: 'polite' }");
  EXPECT_FALSE(SameLogprobs(both, one));
  ASSERT_EQ(both.finish().adapters_size(), 2);
  EXPECT_EQ(both.finish().adapters(1).name(), "polite");
  const v1::Sample turned = Answer(" adapters { adapter: 'polite' } adapters { adapter: 'fr' }");
  for (int i = 0; i < both.logprobs_size(); ++i) {
    EXPECT_EQ(both.token_ids(i), turned.token_ids(i));
    EXPECT_NEAR(both.logprobs(i).chosen().logprob(), turned.logprobs(i).chosen().logprob(), 1e-4);
  }
}

TEST_F(CompositionTest, WhatDoesNotGoTogetherIsRefusedByField) {
  EXPECT_EQ(UploadSoftPrompt("soft", 5).num_virtual_tokens(), 5);
  EXPECT_FALSE(UploadSoftPrompt("other", 3, 1.0f).has_weight());
  ExpectBadField(" adapter: 'fr' adapters { adapter: 'polite' }", "adapters");
  ExpectBadField(" adapters { adapter: 'fr' } adapters { adapter: 'fr@1' }", "adapters[1]");
  ExpectBadField(" adapters { adapter: 'fr' weight: 9 }", "adapters[0].weight");
  ExpectBadField(" adapters { adapter: 'fr' } adapters { adapter: 'soft' weight: 0.5 }",
                 "adapters[1].weight");
  ExpectBadField(" adapters { adapter: 'soft' } adapters { adapter: 'other' }", "adapters[1]");
  const grpc::Status missing =
      StatusOf(absl::StrCat(kGreedy, " adapters { adapter: 'fr' } adapters { adapter: 'no' }"));
  EXPECT_EQ(missing.error_code(), grpc::StatusCode::NOT_FOUND);
  ExpectSame(Answer(" adapters { adapter: 'soft' weight: 0 }"), Answer(""));
  ExpectSame(Answer(" adapters { adapter: 'soft' } adapters { adapter: 'other' weight: 0 }"),
             Answer(" adapter: 'soft'"));
}

TEST_F(CompositionTest, SoftPromptsInOneBatchAnswerAsAlone) {
  UploadSoftPrompt("soft", 21);
  UploadSoftPrompt("long", 70, 2.0f);
  const std::vector<std::string> selections = {
      " adapter: 'soft'", " adapter: 'long'", "", " adapter: 'fr'",
      " adapters { adapter: 'soft' } adapters { adapter: 'fr' weight: 0.5 }"};
  std::vector<v1::Sample> alone;
  for (const std::string& selection : selections) {
    alone.push_back(Answer(selection));
  }
  EXPECT_FALSE(SameLogprobs(alone[0], alone[2]));
  EXPECT_FALSE(SameLogprobs(alone[0], alone[4]));
  server_.reset();
  Start();
  std::vector<v1::Sample> together(25);
  std::vector<std::thread> threads;
  for (size_t i = 0; i < together.size(); ++i) {
    threads.emplace_back([&, i] {
      const Joined stream = Stream(absl::StrCat(kGreedy, selections[i % selections.size()]));
      if (stream.status.ok()) {
        together[i] = stream.samples.at(0);
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  for (size_t i = 0; i < together.size(); ++i) {
    SCOPED_TRACE(selections[i % selections.size()]);
    ExpectSame(together[i], alone[i % selections.size()]);
  }
}

TEST_F(CompositionTest, VirtualTokensCountInTheContext) {
  UploadSoftPrompt("soft", 100);
  const auto response = Generate(
      "prompt: 'hello' adapter: 'soft' sampling { temperature: 0 } "
      "stopping { max_tokens: 256 ignore_eos: true } output { token_ids: true }");
  const v1::Finish& finish = response.samples(0).finish();
  EXPECT_EQ(finish.reason(), v1::FINISH_REASON_CONTEXT_LENGTH);
  EXPECT_EQ(finish.usage().prompt_tokens() + finish.usage().completion_tokens(), 256 - 100);
  const grpc::Status status =
      StatusOf(absl::StrCat("adapter: 'soft' prompt: '", std::string(3000, 'x'), "'"));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(status.error_message(), HasSubstr("100 for the adapter's virtual tokens"));
}

TEST_F(CompositionTest, VirtualTokensSurviveARestart) {
  UploadSoftPrompt("soft", 9);
  const v1::Sample before = Answer(" adapter: 'soft'");
  server_.reset();
  Start();
  ExpectSame(Answer(" adapter: 'soft'"), before);
  ExpectBadField(" adapters { adapter: 'soft' weight: 2 }", "adapters[0].weight");
}

}  // namespace
}  // namespace tenon
