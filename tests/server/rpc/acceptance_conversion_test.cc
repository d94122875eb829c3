#include "server/rpc/acceptance_conversion.h"

#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"
#include "tests/source_dir.h"

namespace tenon {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class AcceptanceConversionTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    auto loaded = Tokenizer::Load(SourcePath("tests/golden/data/tiny-llama/model"));
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    tokenizer_ = loaded->release();
  }
  static void TearDownTestSuite() { delete std::exchange(tokenizer_, nullptr); }

  AcceptanceConversionTest() {
    limits_.vocab_size = tokenizer_->vocab_size();
    limits_.max_context_tokens = 64;
  }

  absl::StatusOr<std::vector<AcceptanceProbe>> Probes(const std::string& text,
                                                      int64_t num_virtual_tokens = 0) {
    v1::UploadHeader header;
    EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &header)) << text;
    return ToProbes(header, limits_, *tokenizer_, num_virtual_tokens);
  }

  static Tokenizer* tokenizer_;
  RequestLimits limits_;
};

Tokenizer* AcceptanceConversionTest::tokenizer_ = nullptr;

TEST_F(AcceptanceConversionTest, WithoutProbesThereIsTheForwardPass) {
  const auto probes = Probes("");
  ASSERT_TRUE(probes.ok()) << probes.status();
  ASSERT_EQ(probes->size(), 1u);
  EXPECT_TRUE(std::holds_alternative<ExpectedFinite>(probes->front().expectation));
}

TEST_F(AcceptanceConversionTest, EveryKindIsRead) {
  const auto probes = Probes(R"(
      probes { name: 'ids' tokens { ids: [1, 2] } expected_tokens { ids: [3] } }
      probes { prompt: 'hello' expected_text: ' world' }
      probes { prompt: 'hello' max_loss { text: ' world' loss: 1.5 } }
      probes { prompt: 'hello' max_loss { tokens { ids: [4, 5] } loss: 2 } })");
  ASSERT_TRUE(probes.ok()) << probes.status();
  ASSERT_EQ(probes->size(), 5u);
  EXPECT_EQ((*probes)[1].name, "ids");
  EXPECT_THAT((*probes)[1].prompt, ElementsAre(1, 2));
  EXPECT_THAT(std::get<ExpectedTokens>((*probes)[1].expectation).ids, ElementsAre(3));
  EXPECT_EQ((*probes)[2].name, "probe 2");
  EXPECT_EQ((*probes)[2].prompt, *tokenizer_->Encode("hello", true));
  EXPECT_EQ(std::get<ExpectedText>((*probes)[2].expectation).text, " world");
  const auto& loss = std::get<ExpectedLoss>((*probes)[3].expectation);
  EXPECT_EQ(loss.target, *tokenizer_->Encode(" world", false));
  EXPECT_EQ(loss.max_loss, 1.5);
  EXPECT_THAT(std::get<ExpectedLoss>((*probes)[4].expectation).target, ElementsAre(4, 5));
}

TEST_F(AcceptanceConversionTest, WhatIsWrongIsNamed) {
  const std::string many = [] {
    std::string text;
    for (int i = 0; i < 33; ++i) {
      absl::StrAppend(&text, "probes { prompt: 'a' expected_text: 'b' } ");
    }
    return text;
  }();
  const struct {
    std::string header;
    const char* field;
  } kCases[] = {
      {"probes { expected_text: 'b' }", "header.probes[0]"},
      {"probes { prompt: 'a' }", "header.probes[0]"},
      {"probes { prompt: '' expected_text: 'b' }", "header.probes[0].prompt"},
      {"probes { tokens {} expected_text: 'b' }", "header.probes[0].tokens.ids"},
      {"probes { tokens { ids: -1 } expected_text: 'b' }", "header.probes[0].tokens.ids[0]"},
      {"probes { prompt: 'a' expected_text: '' }", "header.probes[0].expected_text"},
      {"probes { prompt: 'a' expected_tokens {} }", "header.probes[0].expected_tokens.ids"},
      {"probes { prompt: 'a' expected_tokens { ids: 99999999 } }",
       "header.probes[0].expected_tokens.ids[0]"},
      {"probes { prompt: 'a' max_loss { loss: 1 } }", "header.probes[0].max_loss"},
      {"probes { prompt: 'a' max_loss { text: 'b' loss: -1 } }", "header.probes[0].max_loss.loss"},
      {"probes { prompt: 'a' max_loss { text: 'b' loss: nan } }", "header.probes[0].max_loss.loss"},
      {"probes { prompt: 'a' max_loss { text: 'b' loss: inf } }", "header.probes[0].max_loss.loss"},
      {"probes { prompt: 'a' expected_text: 'b' } probes { name: 'a\\nb' prompt: 'a' "
       "expected_text: 'b' }",
       "header.probes[1].name"},
      {absl::StrCat("probes { name: '", std::string(65, 'n'), "' prompt: 'a' expected_text: 'b' }"),
       "header.probes[0].name"},
      {absl::StrCat("probes { prompt: 'a' expected_text: '", std::string(1025, 'x'), "' }"),
       "header.probes[0].expected_text"},
      {many, "header.probes"},
  };
  for (const auto& test : kCases) {
    const absl::Status status = Probes(test.header).status();
    ASSERT_TRUE(absl::IsInvalidArgument(status)) << test.header << ": " << status;
    EXPECT_EQ(GetErrorDetail(status)->subject, test.field) << status;
  }
}

TEST_F(AcceptanceConversionTest, ProbeMustFitTheContextBesideVirtualTokens) {
  const std::string probe = "probes { tokens { ids: [1, 2, 3] } expected_tokens { ids: [4, 5] } }";
  EXPECT_TRUE(Probes(probe, /*num_virtual_tokens=*/59).ok());
  const absl::Status over = Probes(probe, /*num_virtual_tokens=*/60).status();
  EXPECT_EQ(GetErrorDetail(over)->subject, "header.probes[0]") << over;
  EXPECT_THAT(std::string(over.message()), HasSubstr("5 tokens of context, which has room for 4"));
}

TEST(AcceptanceErrorTest, NamesTheFirstFailures) {
  AcceptanceReport report;
  report.passed = true;
  EXPECT_TRUE(AcceptanceError("fr", report).ok());
  report.passed = false;
  report.results.push_back({"fine", true, "", std::nullopt});
  for (int i = 0; i < 5; ++i) {
    report.results.push_back({absl::StrCat("p", i), false, "got 7", std::nullopt});
  }
  const absl::Status status = AcceptanceError("fr", report);
  EXPECT_TRUE(absl::IsFailedPrecondition(status));
  EXPECT_EQ(GetErrorDetail(status)->reason, "ACCEPTANCE_FAILED");
  EXPECT_EQ(status.message(),
            "adapter fr failed 5 of 6 acceptance checks; p0: got 7; p1: got 7; p2: got 7");
}

TEST(AcceptanceCatalogueTest, ReportsRoundTrip) {
  AcceptanceReport report;
  report.passed = true;
  report.time = absl::FromUnixMillis(1'700'000'000'250);
  report.elapsed = absl::Milliseconds(12);
  report.results.push_back({"loss", true, "loss 0.5, at most 1", 0.5});
  const v1::AcceptanceReport proto = ToProto(report);
  const v1::AcceptanceReport back = FromCatalogue(ToCatalogue(proto));
  EXPECT_EQ(back.SerializeAsString(), proto.SerializeAsString());
  EXPECT_EQ(back.time().nanos(), 250'000'000);
  EXPECT_EQ(back.results(0).loss(), 0.5);
}

TEST(AcceptanceCatalogueTest, DamagedReportReadsAsNone) {
  EXPECT_EQ(FromCatalogue("{\"passed\": tr").results_size(), 0);
  EXPECT_FALSE(FromCatalogue("").passed());
  EXPECT_TRUE(FromCatalogue(R"({"passed":true,"of_a_newer_server":1})").passed());
}

TEST(ToTimestampTest, TimesBeforeTheEpochHaveNoNegativeNanos) {
  const google::protobuf::Timestamp time = ToTimestamp(absl::FromUnixMillis(-250));
  EXPECT_EQ(time.seconds(), -1);
  EXPECT_EQ(time.nanos(), 750'000'000);
}

}  // namespace
}  // namespace tenon
