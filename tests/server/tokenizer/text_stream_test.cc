#include "server/tokenizer/text_stream.h"

#include <algorithm>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/server/tokenizer/test_models.h"

namespace tenon {
namespace {

using ::testing::ElementsAre;

class TextStreamTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { tokenizer_ = LoadTestTokenizer("bpe").release(); }
  static void TearDownTestSuite() { delete tokenizer_; }

  // One token a byte, so that a test chooses the token boundaries itself.
  static std::vector<int32_t> Bytes(absl::string_view text) {
    std::vector<int32_t> ids;
    for (const char c : text) {
      const std::vector<int32_t> id = tokenizer_->Encode(std::string(1, c), false).value();
      EXPECT_EQ(id.size(), 1u);
      ids.push_back(id[0]);
    }
    return ids;
  }

  struct Result {
    std::vector<std::string> pieces;  // one per token, then the flush
    std::string text;
    std::optional<std::string> stop;
    size_t num_tokens = 0;  // until the stop
  };

  static Result Run(const std::vector<int32_t>& ids, TextStreamOptions options) {
    TextStream stream(tokenizer_, std::move(options));
    Result result;
    const auto take = [&](TextPiece piece) {
      result.text += piece.text;
      result.pieces.push_back(std::move(piece.text));
      if (piece.stop_matched.has_value()) {
        EXPECT_FALSE(result.stop.has_value());
        result.stop = piece.stop_matched;
      }
    };
    for (const int32_t id : ids) {
      result.num_tokens += !stream.stopped();
      take(stream.Append(id).value());
    }
    take(stream.Flush().value());
    EXPECT_EQ(stream.stopped(), result.stop.has_value());
    return result;
  }

  static Tokenizer* tokenizer_;
};
Tokenizer* TextStreamTest::tokenizer_ = nullptr;

TEST_F(TextStreamTest, WithoutStopStringsTextPassesAtOnce) {
  EXPECT_THAT(Run(Bytes("abc"), {}).pieces, ElementsAre("a", "b", "c", ""));
}

TEST_F(TextStreamTest, StopStringAcrossTokensEndsTheTextBeforeIt) {
  const Result result = Run(Bytes("one END two"), {.stop = {"END"}});
  EXPECT_EQ(result.text, "one ");
  EXPECT_EQ(result.stop, "END");
  EXPECT_EQ(result.num_tokens, 7u);
}

TEST_F(TextStreamTest, StopStringInsideOneTokenIsFound) {
  const std::vector<int32_t> ids = tokenizer_->Encode("The tenon holds", false).value();
  ASSERT_LT(ids.size(), 12u);
  EXPECT_EQ(Run(ids, {.stop = {"eno"}}).text, "The t");
}

TEST_F(TextStreamTest, IncludeStopKeepsIt) {
  const Result result = Run(Bytes("one END two"), {.stop = {"END"}, .include_stop = true});
  EXPECT_EQ(result.text, "one END");
  EXPECT_EQ(result.stop, "END");
}

TEST_F(TextStreamTest, PossibleBeginningIsHeldBackAndReleased) {
  EXPECT_THAT(Run(Bytes("aEN.EN"), {.stop = {"END"}}).pieces,
              ElementsAre("a", "", "", "EN.", "", "", "EN"));
}

TEST_F(TextStreamTest, ReleasedTextKeepsALaterBeginning) {
  // After "aa", a third "a" releases one and keeps the two that may still begin "aab".
  const Result result = Run(Bytes("aaab"), {.stop = {"aab"}});
  EXPECT_THAT(result.pieces, ElementsAre("", "", "a", "", ""));
  EXPECT_EQ(result.stop, "aab");
}

TEST_F(TextStreamTest, FirstCompleteStopStringCounts) {
  EXPECT_EQ(Run(Bytes("xabcdex"), {.stop = {"abcde", "bcd"}}).stop, "bcd");
  EXPECT_EQ(Run(Bytes("xabcdex"), {.stop = {"bcd", "abcde"}}).text, "xa");
  EXPECT_EQ(Run(Bytes("xabx"), {.stop = {"b", "ab"}}).stop, "ab");
  EXPECT_EQ(Run(Bytes("xaby"), {.stop = {"aby", "ab"}}).stop, "ab");
}

TEST_F(TextStreamTest, MinTokensLetsEarlierStopStringsPass) {
  EXPECT_EQ(Run(Bytes("a.b.c"), {.stop = {"."}, .min_tokens = 2}).text, "a.b");
  EXPECT_EQ(Run(Bytes("a.b.c"), {.stop = {"."}, .min_tokens = 1}).text, "a");
  EXPECT_EQ(Run(Bytes("a.b.c"), {.stop = {"."}, .min_tokens = 5}).text, "a.b.c");
}

TEST_F(TextStreamTest, StopStringMayBeginBeforeMinTokens) {
  const Result result = Run(Bytes("xENDx"), {.stop = {"END"}, .min_tokens = 3});
  EXPECT_EQ(result.text, "x");
  EXPECT_EQ(result.stop, "END");
}

TEST_F(TextStreamTest, NothingComesAfterAStop) {
  const Result result = Run(Bytes("a.b.c"), {.stop = {"."}});
  EXPECT_THAT(result.pieces, ElementsAre("a", "", "", "", "", ""));
}

TEST_F(TextStreamTest, MultiByteStopStringIsFound) {
  const std::vector<int32_t> ids = tokenizer_->Encode("日本語です。はい", false).value();
  const Result result = Run(ids, {.stop = {"。"}});
  EXPECT_EQ(result.text, "日本語です");
  EXPECT_EQ(result.stop, "。");
}

TEST_F(TextStreamTest, FlushMayCompleteAStopString) {
  const std::vector<int32_t> ids = tokenizer_->Encode("👍", false).value();
  EXPECT_EQ(Run({ids[0]}, {.stop = {"\uFFFD"}}).stop, "\uFFFD");
}

TEST_F(TextStreamTest, EmptyStopStringIsIgnored) {
  const Result result = Run(Bytes("ab"), {.stop = {""}});
  EXPECT_EQ(result.text, "ab");
  EXPECT_FALSE(result.stop.has_value());
}

// Against the definition: of all places where a stop string ends, the first, and there the longest.
TEST_F(TextStreamTest, AnswerIsThatOfASearchOfTheWholeText) {
  for (uint32_t seed = 0; seed < 500; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    std::mt19937 random(seed);
    const auto word = [&](size_t size) {
      std::string text;
      for (size_t i = 0; i < size; ++i) {
        text += "ab."[random() % 3];
      }
      return text;
    };
    const std::string text = word(40);
    std::vector<std::string> stops;
    for (size_t i = 0; i < 1 + seed % 3; ++i) {
      stops.push_back(word(1 + random() % 6));
    }
    size_t end = std::string::npos, begin = 0;
    for (const std::string& stop : stops) {
      const size_t found = text.find(stop);
      if (found != std::string::npos && (end == std::string::npos || found + stop.size() < end ||
                                         (found + stop.size() == end && found < begin))) {
        begin = found;
        end = found + stop.size();
      }
    }
    const std::string expected = end == std::string::npos ? text : text.substr(0, begin);
    EXPECT_EQ(Run(Bytes(text), {.stop = stops}).text, expected) << absl::StrJoin(stops, " | ");
    EXPECT_EQ(Run(tokenizer_->Encode(text, false).value(), {.stop = stops}).text, expected);
  }
}

}  // namespace
}  // namespace tenon
