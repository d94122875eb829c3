#include "server/tokenizer/tokenizer.h"

#include <string>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "adapters/base/errors.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/server/tokenizer/test_models.h"

namespace tenon {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Every text of cases.json against what Python's tokenizers made of it.
class TokenizerParityTest : public testing::TestWithParam<const char*> {};

TEST_P(TokenizerParityTest, EncodesAndDecodesAsPythonDoes) {
  const auto tokenizer = LoadTestTokenizer(GetParam());
  const nlohmann::json cases = ReadJson(DataFolder(GetParam()) + "/cases.json");
  ASSERT_GT(cases.size(), 10u);
  for (const nlohmann::json& one : cases) {
    const std::string text = one["text"];
    SCOPED_TRACE(text);
    EXPECT_EQ(tokenizer->Encode(text, false).value(), one["ids"].get<std::vector<int32_t>>());
    const auto ids = one["ids_with_special"].get<std::vector<int32_t>>();
    EXPECT_EQ(tokenizer->Encode(text, true).value(), ids);
    EXPECT_EQ(tokenizer->Decode(ids, true).value(), one["decoded"].get<std::string>());
    EXPECT_EQ(tokenizer->Decode(ids, false).value(), one["decoded_all"].get<std::string>());
  }
}

INSTANTIATE_TEST_SUITE_P(Models, TokenizerParityTest, testing::Values("bpe", "fallback"),
                         [](const auto& param_info) { return std::string(param_info.param); });

TEST(TokenizerTest, TextOverTheByteLimitIsRefused) {
  TokenizerOptions options;
  options.max_text_bytes = 16;
  const auto tokenizer = LoadTestTokenizer("bpe", options);
  EXPECT_TRUE(tokenizer->Encode("0123 5678 abcdef", false).ok());
  const absl::Status status = tokenizer->Encode("0123 5678 abcdefg", false).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("17 bytes exceed the limit of 16"));
  EXPECT_EQ(GetErrorDetail(status)->subject, "text");
}

TEST(TokenizerTest, InvalidUtf8IsRefusedWithItsPosition) {
  const auto tokenizer = LoadTestTokenizer("bpe");
  const absl::Status status = tokenizer->Encode("abc\xFFz", false).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("byte 3 of 5"));
}

// The largest texts that are let through, of the shapes that tokenizers can be slow on: one endless
// word, endless spaces before a word. Measured: 0.2 to 0.5 s each on one core; the bound leaves
// room for sanitizers, and anything quadratic would take hours.
TEST(TokenizerTest, LargestTextsAreEncodedInBoundedTime) {
  const auto tokenizer = LoadTestTokenizer("bpe");
  const size_t max_bytes = static_cast<size_t>(TokenizerOptions().max_text_bytes);
  for (const std::string unit : {"a", "ab", " ", "\n", " \n", "7", "!", "é", "語"}) {
    std::string text;
    while (text.size() + unit.size() < max_bytes) {
      text += unit;
    }
    text += "x";
    const absl::Time start = absl::Now();
    EXPECT_TRUE(tokenizer->Encode(text, false).ok()) << unit;
    EXPECT_LT(absl::Now() - start, absl::Seconds(20)) << unit;
  }
}

TEST(TokenizerTest, UnknownIdsDecodeToNothing) {
  const auto tokenizer = LoadTestTokenizer("bpe");
  const std::vector<int32_t> tenon = tokenizer->Encode("tenon", false).value();
  std::vector<int32_t> ids = {-1, tokenizer->vocab_size(), 1 << 30};
  EXPECT_EQ(tokenizer->Decode(ids, true).value(), "");
  ids.insert(ids.begin(), tenon.begin(), tenon.end());
  EXPECT_EQ(tokenizer->Decode(ids, true).value(), "tenon");
  EXPECT_EQ(tokenizer->TokenText(-1), "");
  EXPECT_EQ(tokenizer->TokenText(tokenizer->vocab_size()), "");
}

TEST(TokenizerTest, TokenTextsOfATextAreTheText) {
  for (const char* name : {"bpe", "fallback"}) {
    const auto tokenizer = LoadTestTokenizer(name);
    std::string joined;
    const std::vector<int32_t> ids = tokenizer->Encode("The tenon holds.", false).value();
    for (const int32_t id : ids) {
      joined += tokenizer->TokenText(id);
    }
    // SentencePiece-style models put a space in front of a text.
    EXPECT_EQ(joined, std::string(name) == "bpe" ? "The tenon holds." : " The tenon holds.");
  }
}

TEST(TokenizerTest, SpecialTokensAreKnown) {
  const auto tokenizer = LoadTestTokenizer("bpe");
  EXPECT_EQ(tokenizer->vocab_size(), 400);
  EXPECT_EQ(tokenizer->FindToken("<|end|>"), 1);
  EXPECT_EQ(tokenizer->FindToken("<|nope|>"), std::nullopt);
  EXPECT_EQ(tokenizer->bos_token_id(), 0);
  EXPECT_EQ(tokenizer->eos_token_id(), 1);
  EXPECT_EQ(tokenizer->pad_token_id(), std::nullopt);
  EXPECT_TRUE(tokenizer->is_special(1));
  EXPECT_FALSE(tokenizer->is_special(200));
  EXPECT_FALSE(tokenizer->is_special(-1));
  EXPECT_EQ(tokenizer->TokenText(1), "<|end|>");
}

TEST(TokenizerTest, ManyThreadsGetTheSameIds) {
  const auto tokenizer = LoadTestTokenizer("bpe");
  const std::string text = "The quick brown fox measures twice, 1234 Straßen. ";
  const std::vector<int32_t> expected = tokenizer->Encode(text, true).value();
  std::vector<int> num_equal(4, 0);
  std::vector<std::thread> threads;
  for (int& count : num_equal) {
    threads.emplace_back([&] {
      for (int round = 0; round < 200; ++round) {
        count += tokenizer->Encode(text, true).value() == expected &&
                 tokenizer->Decode(expected, true).value() == text;
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_THAT(num_equal, ElementsAre(200, 200, 200, 200));
}

}  // namespace
}  // namespace tenon
