#include "server/rpc/request_validation.h"

#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"

namespace tenon {
namespace {

constexpr uint64_t kSeed = 42;

RequestLimits Limits() {
  RequestLimits limits;
  limits.vocab_size = 1000;
  limits.max_context_tokens = 128;
  limits.max_text_bytes = 4096;
  limits.defaults.eos_token_ids = {2};
  return limits;
}

v1::GenerateRequest Parse(const std::string& text) {
  v1::GenerateRequest request;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &request)) << text;
  return request;
}

absl::StatusOr<TextRequest> Convert(const std::string& text) {
  return ToTextRequest(Parse(text), Limits(), kSeed);
}

struct BadCase {
  std::string request;
  std::string field;
};

class BadRequestTest : public testing::TestWithParam<BadCase> {};

TEST_P(BadRequestTest, NamesTheField) {
  const absl::StatusOr<TextRequest> result = Convert(GetParam().request);
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument);
  const std::optional<ErrorDetail> detail = GetErrorDetail(result.status());
  ASSERT_TRUE(detail.has_value());
  EXPECT_EQ(detail->kind, ErrorDetail::Kind::kField);
  EXPECT_EQ(detail->subject, GetParam().field);
}

std::string Repeat(int count, const std::string& text) {
  std::string out;
  for (int i = 0; i < count; ++i) {
    absl::StrAppend(&out, text);
  }
  return out;
}

std::vector<BadCase> BadInputs() {
  return {
      {"", "input"},
      {"prompt: ''", "prompt"},
      {absl::StrCat("prompt: '", std::string(4097, 'x'), "'"), "prompt"},
      {"chat {}", "chat.messages"},
      {"chat { messages { content: 'a' } }", "chat.messages[0].role"},
      {"chat { messages { role: 'user' } messages { role: '" + std::string(65, 'r') + "' } }",
       "chat.messages[1].role"},
      {"chat {" + Repeat(1025, "messages { role: 'user' }") + "}", "chat.messages"},
      {"chat {" + Repeat(2, "messages { role: 'u' content: '" + std::string(2049, 'x') + "' }") +
           "}",
       "chat.messages"},
      {"tokens {}", "tokens.ids"},
      {"tokens { ids: [1, -1] }", "tokens.ids[1]"},
      {"tokens { ids: [1000] }", "tokens.ids[0]"},
      {"tokens {" + Repeat(129, " ids: 1") + "}", "tokens.ids"},
      {"prompt: 'a' request_id: '" + std::string(129, 'x') + "'", "request_id"},
      {"prompt: 'a' request_id: 'a b'", "request_id"},
      {"prompt: 'a' request_id: 'a\\nb'", "request_id"},
      {"prompt: 'a' request_id: '\\303\\251'", "request_id"},
      {"prompt: 'a' adapter: '../etc'", "adapter"},
      {"prompt: 'a' adapter: 'fr@0'", "adapter"},
      {"prompt: 'a' adapter: 'fr@../x'", "adapter"},
      {"prompt: 'a' adapter: 'fr' adapters { adapter: 'de' }", "adapters"},
      {"prompt: 'a'" + Repeat(9, " adapters { adapter: 'fr' }"), "adapters"},
      {"prompt: 'a' adapters { weight: 1 }", "adapters[0].adapter"},
      {"prompt: 'a' adapters { adapter: 'fr' } adapters { adapter: '../x' }",
       "adapters[1].adapter"},
      {"prompt: 'a' adapters { adapter: 'fr' weight: 8.1 }", "adapters[0].weight"},
      {"prompt: 'a' adapters { adapter: 'fr' weight: -inf }", "adapters[0].weight"},
      {"prompt: 'a' adapters { adapter: 'fr' weight: nan }", "adapters[0].weight"},
  };
}

std::vector<BadCase> BadNumbers() {
  // field of SamplingOptions -> values just outside its range, and values that are never inside.
  const std::vector<std::pair<std::string, std::vector<std::string>>> floats = {
      {"temperature", {"-0.001", "100.1"}},  {"top_p", {"0", "-1", "1.001"}},
      {"min_p", {"-0.001", "1.001"}},        {"repetition_penalty", {"0", "-1", "100.1"}},
      {"presence_penalty", {"-2.1", "2.1"}}, {"frequency_penalty", {"-2.1", "2.1"}},
  };
  std::vector<BadCase> cases;
  const auto add = [&cases](const std::string& message, const std::string& name,
                            const std::string& value) {
    cases.push_back({absl::StrCat("prompt: 'a' ", message, " { ", name, ": ", value, " }"),
                     absl::StrCat(message, ".", name)});
  };
  for (const auto& [name, values] : floats) {
    for (const std::string& value : values) {
      add("sampling", name, value);
    }
    for (const char* value : {"nan", "inf", "-inf"}) {
      add("sampling", name, value);
    }
  }
  for (const char* value : {"-1", "1001", "2147483647", "-2147483648"}) {
    add("sampling", "top_k", value);
  }
  for (const char* value : {"0", "-1", "17", "2147483647"}) {
    add("sampling", "n", value);
  }
  for (const char* value : {"0", "-1", "129", "2147483647"}) {
    add("stopping", "max_tokens", value);
  }
  for (const char* value : {"-1", "129", "2147483647"}) {
    add("stopping", "min_tokens", value);
  }
  for (const char* value : {"-1", "21", "2147483647"}) {
    add("output", "logprobs", value);
    add("output", "prompt_logprobs", value);
  }
  return cases;
}

std::vector<BadCase> BadLists() {
  const auto bias = [](const std::string& key, const std::string& value) {
    return absl::StrCat("prompt: 'a' sampling { logit_bias { key: ", key, " value: ", value,
                        " } }");
  };
  std::string many_biases;
  for (int i = 0; i < 1025; ++i) {
    absl::StrAppend(&many_biases, "logit_bias { key: ", i, " value: 1 }");
  }
  return {
      {"prompt: 'a' stopping { max_tokens: 4 min_tokens: 5 }", "stopping.min_tokens"},
      {bias("-1", "1"), "sampling.logit_bias[-1]"},
      {bias("1000", "1"), "sampling.logit_bias[1000]"},
      {bias("1", "100.5"), "sampling.logit_bias[1]"},
      {bias("1", "nan"), "sampling.logit_bias[1]"},
      {bias("1", "-inf"), "sampling.logit_bias[1]"},
      {"prompt: 'a' sampling {" + many_biases + "}", "sampling.logit_bias"},
      {"prompt: 'a' stopping {" + Repeat(17, "stop: 'x' ") + "}", "stopping.stop"},
      {"prompt: 'a' stopping { stop: 'x' stop: '' }", "stopping.stop[1]"},
      {"prompt: 'a' stopping { stop: '" + std::string(257, 'x') + "' }", "stopping.stop[0]"},
      {"prompt: 'a' stopping { stop_token_ids: 1000 }", "stopping.stop_token_ids[0]"},
      {"prompt: 'a' stopping { stop_token_ids: -1 }", "stopping.stop_token_ids[0]"},
      {"prompt: 'a' stopping {" + Repeat(65, "stop_token_ids: 1 ") + "}",
       "stopping.stop_token_ids"},
  };
}

INSTANTIATE_TEST_SUITE_P(Inputs, BadRequestTest, testing::ValuesIn(BadInputs()));
INSTANTIATE_TEST_SUITE_P(Numbers, BadRequestTest, testing::ValuesIn(BadNumbers()));
INSTANTIATE_TEST_SUITE_P(Lists, BadRequestTest, testing::ValuesIn(BadLists()));

TEST(RequestValidationTest, BoundsThemselvesAreValid) {
  for (const char* options :
       {"sampling { temperature: 0 top_k: 0 top_p: 1 min_p: 0 n: 1 }",
        "sampling { temperature: 100 top_k: 1000 top_p: 0.001 min_p: 1 n: 16 }",
        "sampling { repetition_penalty: 100 presence_penalty: 2 frequency_penalty: -2 }",
        "sampling { logit_bias { key: 0 value: -100 } logit_bias { key: 999 value: 100 } }",
        "stopping { max_tokens: 1 min_tokens: 1 }", "stopping { max_tokens: 128 }",
        "output { logprobs: 0 prompt_logprobs: 20 }"}) {
    EXPECT_TRUE(Convert(absl::StrCat("prompt: 'a' ", options)).ok()) << options;
  }
}

TEST(RequestValidationTest, DefaultsAreTheApis) {
  const absl::StatusOr<TextRequest> request = Convert("prompt: 'hello'");
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(std::get<std::string>(request->input), "hello");
  EXPECT_TRUE(request->adapters.empty());
  EXPECT_EQ(request->sampling.temperature, 1.0f);
  EXPECT_EQ(request->sampling.top_k, 0);
  EXPECT_EQ(request->sampling.top_p, 1.0f);
  EXPECT_EQ(request->sampling.repetition_penalty, 1.0f);
  EXPECT_EQ(request->sampling.max_tokens, 0) << "settled against the prompt's length";
  EXPECT_EQ(request->sampling.seed, kSeed);
  EXPECT_EQ(request->num_samples, 1);
  EXPECT_FALSE(request->sampling.logprobs.has_value());
  EXPECT_FALSE(request->sampling.prompt_logprobs.has_value());
}

TEST(RequestValidationTest, ModelsDefaultsStandInForWhatIsNotSet) {
  RequestLimits limits = Limits();
  limits.defaults.temperature = 0.6f;
  limits.defaults.top_p = 0.9f;
  limits.defaults.top_k = 40;
  const auto request =
      ToTextRequest(Parse("prompt: 'a' sampling { top_k: 0 temperature: 0 }"), limits, kSeed);
  ASSERT_TRUE(request.ok());
  EXPECT_EQ(request->sampling.top_p, 0.9f);
  EXPECT_EQ(request->sampling.top_k, 0) << "an explicit zero is not a missing field";
  EXPECT_EQ(request->sampling.temperature, 0.0f);
}

TEST(RequestValidationTest, SeedOfZeroIsASeed) {
  const auto request = Convert("prompt: 'a' sampling { seed: 0 }");
  ASSERT_TRUE(request.ok());
  EXPECT_EQ(request->sampling.seed, 0u);
}

TEST(RequestValidationTest, ModelsEndTokensJoinTheRequestsOwn) {
  const auto request = Convert("prompt: 'a' stopping { stop_token_ids: [7, 8] }");
  ASSERT_TRUE(request.ok());
  EXPECT_EQ(request->sampling.stop_token_ids, (std::vector<int32_t>{7, 8, 2}));
}

TEST(RequestValidationTest, IgnoreEosLeavesOnlyTheRequestsOwn) {
  const auto request = Convert("prompt: 'a' stopping { stop_token_ids: 7 ignore_eos: true }");
  ASSERT_TRUE(request.ok());
  EXPECT_EQ(request->sampling.stop_token_ids, std::vector<int32_t>{7});
  EXPECT_TRUE(request->sampling.ignore_eos);
}

TEST(RequestValidationTest, LogitBiasIsSortedByToken) {
  const auto request = Convert(
      "prompt: 'a' sampling { logit_bias { key: 9 value: 1 } logit_bias { key: 3 value: -1 } }");
  ASSERT_TRUE(request.ok());
  EXPECT_EQ(request->sampling.logit_bias,
            (std::vector<std::pair<int32_t, float>>{{3, -1.0f}, {9, 1.0f}}));
}

TEST(RequestValidationTest, ChatKeepsItsTurnsAndAsksForAnAnswer) {
  const auto request = Convert(
      "chat { messages { role: 'system' content: 's' } messages { role: 'user' content: 'u' } }");
  ASSERT_TRUE(request.ok());
  const auto& chat = std::get<ChatPrompt>(request->input);
  ASSERT_EQ(chat.turns.size(), 2u);
  EXPECT_EQ(chat.turns[1].role, "user");
  EXPECT_EQ(chat.turns[1].content, "u");
  EXPECT_TRUE(chat.add_generation_prompt);
}

TEST(RequestValidationTest, ChatMayContinueTheLastTurn) {
  const auto request = Convert("chat { messages { role: 'user' } add_generation_prompt: false }");
  ASSERT_TRUE(request.ok());
  EXPECT_FALSE(std::get<ChatPrompt>(request->input).add_generation_prompt);
}

TEST(RequestValidationTest, AdapterMayNameItsVersion) {
  const auto request = Convert("prompt: 'a' adapter: 'fr@3'");
  ASSERT_TRUE(request.ok()) << request.status();
  ASSERT_EQ(request->adapters.size(), 1u);
  EXPECT_EQ(request->adapters[0].ref.name, "fr");
  EXPECT_EQ(request->adapters[0].ref.version, 3);
  EXPECT_EQ(request->adapters[0].weight, 1.0f);
}

TEST(RequestValidationTest, AdaptersHaveWeightsOrOne) {
  const auto request = Convert(
      "prompt: 'a' adapters { adapter: 'fr@3' weight: 0 } adapters { adapter: 'polite' } "
      "adapters { adapter: 'loud' weight: -8 }");
  ASSERT_TRUE(request.ok()) << request.status();
  ASSERT_EQ(request->adapters.size(), 3u);
  EXPECT_EQ(request->adapters[0].ref.ToString(), "fr@3");
  EXPECT_EQ(request->adapters[0].weight, 0.0f);
  EXPECT_EQ(request->adapters[1].weight, 1.0f);
  EXPECT_EQ(request->adapters[1].field, "adapters[1]");
  EXPECT_EQ(request->adapters[2].weight, -8.0f);
}

TEST(RequestValidationTest, MessageNamesValueAndLimit) {
  const auto request = Convert("prompt: 'a' sampling { top_p: 1.5 }");
  EXPECT_EQ(request.status().message(), "sampling.top_p: 1.5 is not in (0, 1]");
}

TEST(RequestValidationTest, PriorityIsBounded) {
  EXPECT_EQ(Convert("prompt: 'a'")->priority, 0);
  EXPECT_EQ(Convert("prompt: 'a' priority: -2")->priority, -2);
  for (const char* priority : {"3", "-3", "2147483647", "-2147483648"}) {
    const auto refused = Convert(absl::StrCat("prompt: 'a' priority: ", priority));
    EXPECT_EQ(refused.status().code(), absl::StatusCode::kInvalidArgument) << priority;
  }
}

TEST(RequestValidationTest, DeterminismIsPromisedOnlyWhereItHolds) {
  const auto request = Parse("prompt: 'a' deterministic: true");
  RequestLimits limits = Limits();
  EXPECT_TRUE(ToTextRequest(request, limits, 1)->deterministic);
  limits.batch_invariant = false;
  const absl::Status refused = ToTextRequest(request, limits, 1).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(GetErrorDetail(refused)->reason, "NOT_DETERMINISTIC");
  EXPECT_FALSE(ToTextRequest(Parse("prompt: 'a'"), limits, 1)->deterministic);
  limits.batch_invariant = true;
  limits.always_deterministic = true;
  EXPECT_TRUE(ToTextRequest(Parse("prompt: 'a'"), limits, 1)->deterministic);
}

}  // namespace
}  // namespace tenon
