#include "client/tenonctl/output.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace tenon {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(FormatTableTest, AlignsTextLeftAndNumbersRight) {
  EXPECT_EQ(FormatTable({{"NAME", "N", "NOTE"}, {"a", "7", ""}, {"größer", "12", "x"}}),
            "NAME     N  NOTE\n"
            "a        7\n"
            "größer  12  x\n");
}

TEST(FormatTableTest, HeadingAloneIsALine) { EXPECT_EQ(FormatTable({{"NAME", "N"}}), "NAME  N\n"); }

TEST(FormatBytesTest, ChoosesTheUnit) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(1023), "1023 B");
  EXPECT_EQ(FormatBytes(1024), "1.0 KiB");
  EXPECT_EQ(FormatBytes(int64_t{5} << 19), "2.5 MiB");
  EXPECT_EQ(FormatBytes(int64_t{3} << 30), "3.0 GiB");
  EXPECT_EQ(FormatBytes(int64_t{3} << 50), "3072.0 TiB");
}

TEST(PrintableTextTest, DropsWhatCouldControlATerminal) {
  EXPECT_EQ(PrintableText("a\x1b[31mb\r\x07\x7f"), "a[31mb");
  EXPECT_EQ(PrintableText("\xC2\x9B"
                          "c\xC2\xA9"),
            "c©");
  EXPECT_EQ(PrintableText("line\n\ttab 日本 👍"), "line\n\ttab 日本 👍");
}

TEST(ToJsonTest, HasTheNamesOfTheProtoFilesAndEmptyFields) {
  v1::Adapter adapter;
  adapter.set_name("fr");
  adapter.set_max_rank(8);
  const nlohmann::json json = nlohmann::json::parse(ToJson(adapter));
  EXPECT_EQ(json["name"], "fr");
  EXPECT_EQ(json["max_rank"], "8");  // JSON numbers do not hold all of int64
  EXPECT_EQ(json["resident"], false);
}

v1::Adapter TestAdapter() {
  v1::Adapter adapter;
  adapter.set_name("fr");
  adapter.set_version(3);
  adapter.set_latest(true);
  adapter.add_aliases("latest");
  adapter.add_aliases("stable");
  adapter.set_state(v1::ADAPTER_STATE_LIVE);
  adapter.set_method("LORA");
  adapter.set_max_rank(8);
  adapter.set_num_sites(14);
  adapter.set_stored_bytes(2048);
  adapter.mutable_create_time()->set_seconds(1'700'000'000);
  return adapter;
}

TEST(FormatAdaptersTest, IsATable) {
  EXPECT_EQ(
      FormatAdapters({TestAdapter()}),
      "NAME  VERSION  ALIASES         STATE  METHOD  RANK  SITES  SIZE     CREATED\n"
      "fr          3  latest, stable  live   LORA       8     14  2.0 KiB  2023-11-14 22:13:20Z\n");
}

TEST(FormatAdapterTest, ShowsHowItWasAccepted) {
  v1::Adapter adapter = TestAdapter();
  EXPECT_THAT(FormatAdapter(adapter), Not(HasSubstr("acceptance")));
  adapter.mutable_acceptance()->set_passed(true);
  adapter.mutable_acceptance()->set_elapsed_ms(12);
  v1::ProbeResult& result = *adapter.mutable_acceptance()->add_results();
  result.set_name("greeting\x1b[2J");
  result.set_passed(true);
  result.set_details("the text that was expected");
  EXPECT_THAT(FormatAdapter(adapter),
              AllOf(HasSubstr("acceptance  passed in 12 ms"),
                    HasSubstr("ok     greeting[2J: the text that was expected\n")));
}

TEST(FormatDifferencesTest, HasARowForEachFieldThatDiffers) {
  v1::Adapter first = TestAdapter();
  v1::Adapter second = first;
  second.set_version(4);
  second.set_max_rank(16);
  second.clear_aliases();
  const std::string text = FormatDifferences(first, second);
  EXPECT_THAT(text, AllOf(HasSubstr("fr@3"), HasSubstr("fr@4"), HasSubstr("rank"),
                          HasSubstr("latest, stable"), Not(HasSubstr("method"))));
}

TEST(FormatUploadReportTest, SaysWhatTheMethodHas) {
  v1::Adapter adapter;
  adapter.set_method("LORA");
  adapter.set_max_rank(8);
  adapter.set_num_sites(60);
  adapter.set_num_untouched_sites(152);
  adapter.set_num_parameters(460800);
  adapter.set_stored_bytes(1 << 20);
  adapter.set_resident_bytes(512 << 10);
  adapter.set_delta_norm_bound(12.5);
  EXPECT_EQ(FormatUploadReport(adapter),
            "  LORA, rank 8 at most, 60 sites changed, 152 left alone\n"
            "  460800 parameters, 1.0 MiB stored, 512.0 KiB resident, norm 12.5 at most\n");

  v1::Adapter prefix;
  prefix.set_method("PREFIX_TUNING");
  prefix.set_num_virtual_tokens(16);
  EXPECT_THAT(FormatUploadReport(prefix), HasSubstr("  PREFIX_TUNING, 16 virtual tokens\n"));
}

TEST(FormatAdapterTest, ShowsWarningsAndResidency) {
  v1::Adapter adapter = TestAdapter();
  EXPECT_THAT(FormatAdapter(adapter), HasSubstr("resident    no\n"));
  EXPECT_THAT(FormatAdapter(adapter), Not(HasSubstr("warning")));
  adapter.set_resident(true);
  adapter.set_resident_bytes(1024);
  adapter.add_warnings("dropout is \x1b ignored");
  EXPECT_THAT(FormatAdapter(adapter), HasSubstr("aliases     latest, stable\n"));
  EXPECT_THAT(FormatAdapter(adapter), HasSubstr("resident    1.0 KiB\n"));
  EXPECT_THAT(FormatAdapter(adapter), HasSubstr("warning     dropout is  ignored\n"));
}

TEST(FormatFinishTest, IsOneLine) {
  v1::Finish finish;
  finish.set_reason(v1::FINISH_REASON_MAX_TOKENS);
  finish.mutable_usage()->set_prompt_tokens(5);
  finish.mutable_usage()->set_completion_tokens(7);
  finish.set_request_id("r1");
  EXPECT_THAT(FormatFinish(finish),
              HasSubstr("max tokens: 7 tokens after 5 of prompt (0 cached), base model; ms: "));
  v1::ServedAdapter& adapter = *finish.add_adapters();
  adapter.set_name("fr");
  adapter.set_version(3);
  EXPECT_THAT(FormatFinish(finish), HasSubstr(", fr@3; "));
  adapter.set_alias("latest");
  EXPECT_THAT(FormatFinish(finish), HasSubstr(", fr@3 (latest); "));
  adapter.set_alias("canary");
  adapter.set_by_split(true);
  EXPECT_THAT(FormatFinish(finish), HasSubstr(", fr@3 (canary, by split); "));
  EXPECT_THAT(FormatFinish(finish), HasSubstr("request r1\n"));
}

}  // namespace
}  // namespace tenon
