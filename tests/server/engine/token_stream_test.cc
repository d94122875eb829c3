#include "server/engine/token_stream.h"

#include <gtest/gtest.h>

namespace tenon {
namespace {

TokenEvent Token(int32_t id) {
  return {.sample_index = 0,
          .token = {.token = id, .logprob = 0, .top_logprobs = {}},
          .is_stop = false};
}

TEST(TokenStreamTest, EventsComeOutInOrder) {
  TokenStream stream(8);
  EXPECT_TRUE(stream.empty());
  stream.Push(Token(1));
  stream.Push(Token(2));
  EXPECT_EQ(std::get<TokenEvent>(*stream.Pop()).token.token, 1);
  EXPECT_FALSE(stream.empty());
  EXPECT_EQ(std::get<TokenEvent>(*stream.Pop()).token.token, 2);
  EXPECT_TRUE(stream.empty());
  EXPECT_FALSE(stream.Pop().has_value());
}

TEST(TokenStreamTest, CreditEndsWhenFullAndIsBackWhenHalfIsRead) {
  TokenStream stream(4);
  int credits = 0;
  stream.set_on_credit([&] { ++credits; });
  for (int32_t i = 0; i < 3; ++i) {
    stream.Push(Token(i));
  }
  EXPECT_TRUE(stream.has_credit());
  stream.Push(Token(3));
  EXPECT_FALSE(stream.has_credit());
  stream.Pop();
  EXPECT_FALSE(stream.has_credit());
  EXPECT_EQ(credits, 0);
  stream.Pop();
  EXPECT_TRUE(stream.has_credit());
  EXPECT_EQ(credits, 1);
  stream.Pop();
  EXPECT_EQ(credits, 1);
}

TEST(TokenStreamTest, StreamOfOneEventGetsItsCreditBack) {
  TokenStream stream(1);
  stream.Push(Token(1));
  EXPECT_FALSE(stream.has_credit());
  stream.Pop();
  EXPECT_TRUE(stream.has_credit());
}

TEST(TokenStreamTest, FullStreamStillTakesTheEnd) {
  TokenStream stream(1);
  stream.Push(Token(1));
  stream.Push(FinishEvent{});
  stream.Pop();
  EXPECT_TRUE(std::holds_alternative<FinishEvent>(*stream.Pop()));
}

TEST(TokenStreamTest, ReaderIsToldOfEachEventAndMayReadInTheCallback) {
  TokenStream stream(4);
  std::vector<int32_t> read;
  stream.set_on_readable([&] {
    while (const std::optional<GenerationEvent> event = stream.Pop()) {
      read.push_back(std::get<TokenEvent>(*event).token.token);
    }
  });
  stream.Push(Token(1));
  stream.Push(Token(2));
  EXPECT_EQ(read, (std::vector<int32_t>{1, 2}));
}

TEST(TokenStreamTest, CancelAllKeepsTheFirstReasonAndTellsTheEngine) {
  TokenStream stream(4);
  int told = 0;
  stream.set_on_credit([&] { ++told; });
  EXPECT_EQ(stream.cancelled(0), FinishReason::kNone);
  stream.CancelAll(FinishReason::kDeadline);
  stream.CancelAll(FinishReason::kCancelled);
  EXPECT_EQ(stream.cancelled(0), FinishReason::kDeadline);
  EXPECT_EQ(stream.cancelled(7), FinishReason::kDeadline);
  EXPECT_EQ(told, 2);
}

TEST(TokenStreamTest, CancelSampleEndsThatSampleAlone) {
  TokenStream stream(4);
  stream.CancelSample(1, FinishReason::kStopString);
  EXPECT_EQ(stream.cancelled(0), FinishReason::kNone);
  EXPECT_EQ(stream.cancelled(1), FinishReason::kStopString);
  stream.CancelAll(FinishReason::kCancelled);
  EXPECT_EQ(stream.cancelled(0), FinishReason::kCancelled);
  EXPECT_EQ(stream.cancelled(1), FinishReason::kStopString);
}

}  // namespace
}  // namespace tenon
