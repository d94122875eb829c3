#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/civil_time.h"
#include "absl/time/time.h"
#include "adapters/base/errors.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/tokenizer/tokenizer.h"
#include "tests/server/tokenizer/test_models.h"

namespace tenon {
namespace {

using ::testing::HasSubstr;

const std::vector<ChatTurn> kHello = {{"user", "hi"}};

absl::StatusOr<std::string> Render(absl::string_view source, TokenizerOptions options = {},
                                   const std::vector<ChatTurn>& turns = kHello) {
  ModelFolder folder;
  folder.Write("tokenizer_config.json", R"({"bos_token": "<|begin|>", "eos_token": "<|end|>"})");
  folder.Write("chat_template.jinja", source);
  return folder.Load(std::move(options)).value()->RenderChat(turns, true);
}

TEST(ChatTemplateTest, RendersAsTransformersDoes) {
  const nlohmann::json chats = ReadJson(DataFolder("bpe") + "/chats.json");
  ASSERT_GT(chats.size(), 10u);
  for (const nlohmann::json& chat : chats) {
    SCOPED_TRACE(chat["name"].get<std::string>());
    ModelFolder folder;
    folder.Write("tokenizer_config.json", R"({"bos_token": "<|begin|>", "eos_token": "<|end|>"})");
    folder.Write("chat_template.jinja", chat["template"].get<std::string>());
    std::vector<ChatTurn> turns;
    for (const nlohmann::json& message : chat["messages"]) {
      turns.push_back({message["role"], message["content"]});
    }
    const auto tokenizer = folder.Load().value();
    EXPECT_EQ(tokenizer->RenderChat(turns, chat["add_generation_prompt"]).value(),
              chat["rendered"].get<std::string>());
  }
}

TEST(ChatTemplateTest, ModelWithoutTemplateIsAFailedPrecondition) {
  const absl::Status status = LoadTestTokenizer("fallback")->RenderChat(kHello, true).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(GetErrorDetail(status)->reason, "NO_CHAT_TEMPLATE");
}

TEST(ChatTemplateTest, RaisedExceptionBecomesInvalidArgumentWithItsMessage) {
  const absl::Status status =
      Render("{% macro m() %}{{ raise_exception('roles must alternate') }}{% endmacro %}{{ m() }}")
          .status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(std::string(status.message()), "chat.messages: roles must alternate");
}

TEST(ChatTemplateTest, EndlessTemplatesEnd) {
  const absl::Status loop =
      Render("{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}")
          .status();
  EXPECT_EQ(loop.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(loop.message()), HasSubstr("instructions"));
  const absl::Status recursion = Render("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}").status();
  EXPECT_EQ(recursion.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(recursion.message()), HasSubstr("recursion"));
}

TEST(ChatTemplateTest, OutputAndInputAreBounded) {
  TokenizerOptions options;
  options.max_text_bytes = 64;
  EXPECT_TRUE(Render("{{ 'x' * 64 }}", options).ok());
  const absl::Status output = Render("{{ 'x' * 65 }}", options).status();
  EXPECT_EQ(output.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(output.message()), HasSubstr("exceeds 64 bytes"));
  const absl::Status input = Render("", options, {{"user", std::string(61, 'x')}}).status();
  EXPECT_EQ(input.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(input.message()), HasSubstr("65 bytes exceed the limit of 64"));
}

TEST(ChatTemplateTest, InvalidUtf8IsRefused) {
  const absl::Status status = Render("x", {}, {{"user", "a\xC3"}}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("UTF-8"));
}

TEST(ChatTemplateTest, ErrorsOfTheTemplateNameTheLine) {
  const absl::Status status = Render("one\n{{ messages[0].content.nope() }}").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr(":2"));
}

TEST(ChatTemplateTest, StrftimeNowFormatsTheInjectedTime) {
  const struct {
    absl::CivilSecond second;
    const char* format;
    const char* expected;
  } cases[] = {
      {absl::CivilSecond(2024, 2, 29, 23, 59, 58), "%d %b %Y", "29 Feb 2024"},
      {absl::CivilSecond(2000, 3, 1, 1, 2, 3), "%A, %B %d, %y %H:%M:%S",
       "Wednesday, March 01, 00 01:02:03"},
      {absl::CivilSecond(1969, 12, 31), "%a %Y-%m-%d", "Wed 1969-12-31"},
      {absl::CivilSecond(2100, 12, 31), "%%%q%Y", "%%q2100"},
  };
  for (const auto& one : cases) {
    TokenizerOptions options;
    options.clock = [&] { return absl::FromCivil(one.second, absl::UTCTimeZone()); };
    EXPECT_EQ(Render(absl::StrCat("{{ strftime_now('", one.format, "') }}"), options).value(),
              one.expected);
  }
}

TEST(ChatTemplateTest, DatesAgreeWithAbseilOverFourCenturies) {
  for (int64_t day = -150'000; day < 150'000; day += 9'973) {
    const absl::Time time = absl::FromUnixSeconds(day * 86'400 + 43'200);
    TokenizerOptions options;
    options.clock = [&] { return time; };
    EXPECT_EQ(Render("{{ strftime_now('%Y-%m-%d %a') }}", options).value(),
              absl::FormatTime("%E4Y-%m-%d %a", time, absl::UTCTimeZone()));
  }
}

TEST(ChatTemplateTest, JsonOptionsFollowPython) {
  const std::vector<ChatTurn> turns = {{"user", "\x01é👍\"/"}};
  EXPECT_EQ(
      Render("{{ messages[0] | tojson(ensure_ascii=true, sort_keys=true) }}", {}, turns).value(),
      R"({"content": "\u0001\u00e9\ud83d\udc4d\"/", "role": "user"})");
  EXPECT_EQ(Render("{{ messages | tojson(separators=[',', ':']) }}", {}, turns).value(),
            R"([{"role":"user","content":"\u0001é👍\"/"}])");
  EXPECT_EQ(Render("{{ [] | tojson(indent=4) }}{{ [1, [true, none]] | tojson(indent=1) }}").value(),
            "[][\n 1,\n [\n  true,\n  null\n ]\n]");
}

}  // namespace
}  // namespace tenon
