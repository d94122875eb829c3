#include "server/engine/text_generation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/source_dir.h"

namespace tenon {
namespace {

// The test plays the engine: it pushes what the engine would, and looks at what comes back.
class TextGenerationTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    auto loaded = Tokenizer::Load(SourcePath("tests/golden/data/tiny-llama/model"));
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    tokenizer_ = loaded->release();
  }
  static void TearDownTestSuite() { delete std::exchange(tokenizer_, nullptr); }

  void Begin(int32_t num_samples = 1) {
    request_.num_samples = num_samples;
    stream_ = std::make_shared<TokenStream>(/*capacity=*/64);
    generation_ = std::make_unique<TextGeneration>(
        tokenizer_, request_, std::make_shared<const AdapterSelection>(), stream_);
  }

  void Say(const std::string& text, int32_t sample = 0) {
    const auto ids = tokenizer_->Encode(text, /*add_special_tokens=*/false);
    ASSERT_TRUE(ids.ok());
    for (const int32_t id : *ids) {
      Push(id, sample);
    }
  }
  void Push(int32_t id, int32_t sample = 0) {
    TokenEvent event;
    event.sample_index = sample;
    event.token.token = id;
    stream_->Push(event);
    ++num_pushed_;
  }
  void End(FinishReason reason, int32_t sample = 0, absl::Status status = absl::OkStatus()) {
    FinishEvent event;
    event.sample_index = sample;
    event.reason = reason;
    event.status = std::move(status);
    event.num_prompt_tokens = 3;
    event.num_generated_tokens = num_pushed_;
    stream_->Push(event);
  }

  static Tokenizer* tokenizer_;
  TextRequest request_;
  std::shared_ptr<TokenStream> stream_;
  std::unique_ptr<TextGeneration> generation_;
  int64_t num_pushed_ = 0;
};

Tokenizer* TextGenerationTest::tokenizer_ = nullptr;

TEST_F(TextGenerationTest, NothingPushedIsNothingToRead) {
  Begin();
  EXPECT_FALSE(generation_->Next().has_value());
  EXPECT_FALSE(generation_->finished());
}

TEST_F(TextGenerationTest, WaitingEventsBecomeOneChunk) {
  Begin();
  Say("hello");
  Say(" world");
  const auto chunk = generation_->Next();
  ASSERT_TRUE(chunk.has_value());
  EXPECT_EQ(chunk->text, "hello world");
  EXPECT_EQ(static_cast<int64_t>(chunk->tokens.size()), num_pushed_);
  EXPECT_FALSE(chunk->finish.has_value());
  EXPECT_FALSE(generation_->Next().has_value());
}

TEST_F(TextGenerationTest, SamplesAreKeptApart) {
  Begin(2);
  Say("aa", 0);
  Say("bb", 1);
  Say("cc", 0);
  EXPECT_EQ(generation_->Next()->text, "aacc");
  const auto second = generation_->Next();
  EXPECT_EQ(second->sample_index, 1);
  EXPECT_EQ(second->text, "bb");
  End(FinishReason::kMaxTokens, 0);
  EXPECT_TRUE(generation_->Next()->finish.has_value());
  EXPECT_FALSE(generation_->finished()) << "sample 1 runs on";
  End(FinishReason::kMaxTokens, 1);
  EXPECT_FALSE(generation_->finished()) << "its last chunk was not taken";
  EXPECT_TRUE(generation_->Next()->finish.has_value());
  EXPECT_TRUE(generation_->finished());
  EXPECT_TRUE(generation_->status().ok());
}

TEST_F(TextGenerationTest, MoreIsThereInAnotherSamplesChunkAndInEventsThatWait) {
  Begin(2);
  EXPECT_FALSE(generation_->has_more());
  Say("aa", 0);
  Say("bb", 1);
  EXPECT_TRUE(generation_->has_more());
  ASSERT_TRUE(generation_->Next().has_value());
  EXPECT_TRUE(generation_->has_more()) << "sample 1's chunk";
  Say("cc", 0);  // told of while that chunk waits
  ASSERT_TRUE(generation_->Next().has_value());
  EXPECT_TRUE(generation_->has_more()) << "the event";
  ASSERT_TRUE(generation_->Next().has_value());
  EXPECT_FALSE(generation_->has_more());
}

TEST_F(TextGenerationTest, StopStringEndsTheSampleWhateverTheEngineRanBeyondIt) {
  request_.stop = {"lo"};
  Begin();
  Say("hel");
  EXPECT_EQ(generation_->Next()->text, "he") << "l may be the beginning of the stop string";
  Say("o");
  const int64_t num_tokens = num_pushed_;
  const auto chunk = generation_->Next();
  ASSERT_TRUE(chunk.has_value());
  EXPECT_EQ(chunk->text, "");
  EXPECT_EQ(stream_->cancelled(0), FinishReason::kStopString);
  Say(" world");
  EXPECT_FALSE(generation_->Next().has_value());
  End(FinishReason::kMaxTokens);
  const auto last = generation_->Next();
  ASSERT_TRUE(last->finish.has_value());
  EXPECT_EQ(last->finish->reason, FinishReason::kStopString);
  EXPECT_EQ(last->finish->stop_string, "lo");
  EXPECT_EQ(last->finish->num_generated_tokens, num_tokens);
}

TEST_F(TextGenerationTest, StopStringOfOneSampleLeavesTheOthers) {
  request_.stop = {"x"};
  Begin(2);
  Say("ax", 0);
  Say("ab", 1);
  while (generation_->Next().has_value()) {
  }
  EXPECT_EQ(stream_->cancelled(0), FinishReason::kStopString);
  EXPECT_EQ(stream_->cancelled(1), FinishReason::kNone);
}

TEST_F(TextGenerationTest, HeldBackTextComesAtTheEnd) {
  request_.stop = {"lovely"};
  Begin();
  Say("hello");
  End(FinishReason::kMaxTokens);
  const auto chunk = generation_->Next();
  EXPECT_EQ(chunk->text, "hello");
  EXPECT_EQ(chunk->finish->reason, FinishReason::kMaxTokens);
  EXPECT_EQ(chunk->finish->num_prompt_tokens, 3);
}

TEST_F(TextGenerationTest, StopTokenCountsAndHasNoText) {
  const auto ids = tokenizer_->Encode("z", false);
  ASSERT_EQ(ids->size(), 1u);
  request_.sampling.stop_token_ids = *ids;
  Begin();
  Say("ab");
  Push(ids->front());
  End(FinishReason::kStopToken);
  const auto chunk = generation_->Next();
  EXPECT_EQ(chunk->text, "ab");
  EXPECT_EQ(static_cast<int64_t>(chunk->tokens.size()), num_pushed_);
  EXPECT_EQ(chunk->finish->num_generated_tokens, num_pushed_);
}

TEST_F(TextGenerationTest, PromptLogprobsComeWithSampleZero) {
  Begin(2);
  stream_->Push(PromptEvent{{SampledToken{5, -1.0f, {}}}});
  const auto chunk = generation_->Next();
  EXPECT_EQ(chunk->sample_index, 0);
  ASSERT_EQ(chunk->prompt_logprobs.size(), 1u);
  EXPECT_EQ(chunk->prompt_logprobs[0].token, 5);
}

TEST_F(TextGenerationTest, ErrorOfOneSampleEndsAll) {
  Begin(2);
  Say("a", 1);
  End(FinishReason::kError, 0, absl::InternalError("step failed"));
  EXPECT_FALSE(generation_->Next().has_value()) << "a failed request has no more text";
  EXPECT_EQ(generation_->status().code(), absl::StatusCode::kInternal);
  EXPECT_EQ(stream_->cancelled(1), FinishReason::kCancelled);
  EXPECT_FALSE(generation_->finished());
  End(FinishReason::kCancelled, 1, absl::CancelledError("cancelled"));
  EXPECT_FALSE(generation_->Next().has_value());
  EXPECT_TRUE(generation_->finished());
  EXPECT_EQ(generation_->status().code(), absl::StatusCode::kInternal) << "the first error stays";
}

TEST_F(TextGenerationTest, CancelReachesTheEngine) {
  Begin();
  generation_->Cancel(FinishReason::kCancelled);
  EXPECT_EQ(stream_->cancelled(0), FinishReason::kCancelled);
}

}  // namespace
}  // namespace tenon
