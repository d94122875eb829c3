#include "server/tokenizer/detokenizer.h"

#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "tests/server/tokenizer/test_models.h"

namespace tenon {
namespace {

// Rejects what a client's protobuf would reject: overlong and unfinished characters.
bool IsWholeUtf8(absl::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const unsigned char lead = static_cast<unsigned char>(text[i]);
    const size_t size = lead < 0x80 ? 1 : lead < 0xC2 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    if (size == 0 || i + size > text.size()) {
      return false;
    }
    for (size_t j = 1; j < size; ++j) {
      if ((static_cast<unsigned char>(text[i + j]) & 0xC0) != 0x80) {
        return false;
      }
    }
    i += size;
  }
  return true;
}

std::string Stream(const Tokenizer& tokenizer, const std::vector<int32_t>& ids, bool skip_special) {
  IncrementalDetokenizer detokenizer(&tokenizer, skip_special);
  std::string text;
  for (const int32_t id : ids) {
    const std::string piece = detokenizer.Append(id).value();
    EXPECT_TRUE(IsWholeUtf8(piece)) << id;
    text += piece;
  }
  text += detokenizer.Flush().value();
  EXPECT_EQ(detokenizer.Flush().value(), "");
  return text;
}

TEST(IncrementalDetokenizerTest, PiecesOfTextsAreTheText) {
  for (const char* name : {"bpe", "fallback"}) {
    const auto tokenizer = LoadTestTokenizer(name);
    for (const nlohmann::json& one : ReadJson(DataFolder(name) + "/cases.json")) {
      const auto ids = one["ids_with_special"].get<std::vector<int32_t>>();
      EXPECT_EQ(Stream(*tokenizer, ids, true), one["decoded"].get<std::string>());
      EXPECT_EQ(Stream(*tokenizer, ids, false), one["decoded_all"].get<std::string>());
    }
  }
}

// Random ids of a byte-level vocabulary are mostly broken characters.
TEST(IncrementalDetokenizerTest, PiecesOfRandomIdsAreTheirDecoding) {
  const auto tokenizer = LoadTestTokenizer("bpe");
  for (uint32_t seed = 0; seed < 300; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    std::mt19937 random(seed);
    // Narrow ranges of ids make long runs of continuation bytes or of lead bytes.
    const int32_t low = static_cast<int32_t>(random() % 395), high = low + 1 + random() % 40;
    std::vector<int32_t> ids;
    for (int i = 0; i < 120; ++i) {
      const bool anywhere = seed % 3 == 0 || random() % 16 == 0;
      ids.push_back(anywhere ? static_cast<int32_t>(random() % 410)
                             : low + static_cast<int32_t>(random() % (high - low)));
    }
    for (const bool skip_special : {true, false}) {
      EXPECT_EQ(Stream(*tokenizer, ids, skip_special),
                tokenizer->Decode(ids, skip_special).value());
    }
  }
}

TEST(IncrementalDetokenizerTest, RandomIdsWithByteFallbackStayWholeUtf8) {
  const auto tokenizer = LoadTestTokenizer("fallback");
  for (uint32_t seed = 0; seed < 100; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    std::mt19937 random(seed);
    std::vector<int32_t> ids;
    for (int i = 0; i < 120; ++i) {
      ids.push_back(static_cast<int32_t>(random() % (seed % 2 == 0 ? 450 : 259)));
    }
    Stream(*tokenizer, ids, true);  // checks each piece
  }
}

TEST(IncrementalDetokenizerTest, CharacterOfSeveralTokensComesWithItsLast) {
  for (const char* name : {"bpe", "fallback"}) {
    const auto tokenizer = LoadTestTokenizer(name);
    const std::vector<int32_t> ids = tokenizer->Encode("a 👍", false).value();
    ASSERT_GE(ids.size(), 5u);
    IncrementalDetokenizer detokenizer(tokenizer.get());
    std::vector<std::string> pieces;
    for (const int32_t id : ids) {
      pieces.push_back(detokenizer.Append(id).value());
    }
    EXPECT_EQ(pieces.back(), "👍") << name;
    EXPECT_EQ(pieces[pieces.size() - 2], "") << name;
    EXPECT_EQ(pieces[pieces.size() - 3], "") << name;
  }
}

TEST(IncrementalDetokenizerTest, FlushReleasesAnUnfinishedCharacter) {
  const auto tokenizer = LoadTestTokenizer("bpe");
  const std::vector<int32_t> ids = tokenizer->Encode("👍", false).value();
  IncrementalDetokenizer detokenizer(tokenizer.get());
  EXPECT_EQ(detokenizer.Append(ids[0]).value(), "");
  EXPECT_EQ(detokenizer.Append(ids[1]).value(), "");
  EXPECT_EQ(detokenizer.Flush().value(), "\uFFFD");
}

// A client can force one token for ever with logit_bias; a stream of a byte that never becomes a
// character must neither hold everything back nor decode an ever longer window.
TEST(IncrementalDetokenizerTest, EndlessBrokenBytesAreReleasedOnTheWay) {
  for (const char* name : {"bpe", "fallback"}) {
    const auto tokenizer = LoadTestTokenizer(name);
    const int32_t continuation = tokenizer->Encode("👍", false).value().back();
    IncrementalDetokenizer detokenizer(tokenizer.get());
    size_t num_bytes = 0;
    for (int i = 0; i < 20'000; ++i) {
      num_bytes += detokenizer.Append(continuation).value().size();
    }
    EXPECT_GE(num_bytes, 3u * (20'000 - 40)) << name;
    num_bytes += detokenizer.Flush().value().size();
    EXPECT_EQ(num_bytes, 3u * 20'000) << name;
  }
}

TEST(IncrementalDetokenizerTest, LeadingSpaceOfSentencePieceIsDroppedOnce) {
  const auto tokenizer = LoadTestTokenizer("fallback");
  const std::vector<int32_t> ids = tokenizer->Encode("the  tenon the frame", false).value();
  EXPECT_EQ(Stream(*tokenizer, ids, true), "the  tenon the frame");
}

TEST(IncrementalDetokenizerTest, SpecialTokensAreSkippedWhenAskedFor) {
  const auto tokenizer = LoadTestTokenizer("bpe");
  const std::vector<int32_t> ids = tokenizer->Encode("a<|end|>b", false).value();
  EXPECT_EQ(Stream(*tokenizer, ids, true), "ab");
  EXPECT_EQ(Stream(*tokenizer, ids, false), "a<|end|>b");
}

}  // namespace
}  // namespace tenon
