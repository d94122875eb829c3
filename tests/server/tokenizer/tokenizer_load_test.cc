#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/tokenizer/tokenizer.h"
#include "tests/server/tokenizer/test_models.h"

namespace tenon {
namespace {

using ::testing::HasSubstr;

const std::vector<ChatTurn> kHello = {{"user", "hi"}};

TEST(TokenizerLoadTest, MissingTokenizerIsNotFound) {
  ModelFolder folder("");
  const absl::Status status = folder.Load().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("tokenizer.json"));
}

TEST(TokenizerLoadTest, MalformedFilesAreNamed) {
  for (const char* bytes : {"", "{", "[]", "{\"model\": 1}", "\xFF\xFE"}) {
    ModelFolder folder;
    const absl::Status status = folder.Write("tokenizer.json", bytes).Load().status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << bytes;
    EXPECT_THAT(std::string(status.message()), HasSubstr("tokenizer.json"));
  }
  ModelFolder folder;
  const absl::Status status = folder.Write("tokenizer_config.json", "[1]").Load().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("tokenizer_config.json"));
}

TEST(TokenizerLoadTest, TokenizerJsonAloneIsEnough) {
  ModelFolder folder;
  const auto tokenizer = folder.Load().value();
  EXPECT_FALSE(tokenizer->has_chat_template());
  EXPECT_EQ(tokenizer->eos_token_id(), std::nullopt);
  EXPECT_EQ(tokenizer->Encode("", true).value(), std::vector<int32_t>{0});
}

TEST(TokenizerLoadTest, TokenizerConfigWinsOverSpecialTokensMap) {
  ModelFolder folder;
  folder.Write("special_tokens_map.json",
               R"({"eos_token": {"content": "<|user|>"}, "bos_token": "<|begin|>"})");
  EXPECT_EQ(folder.Load().value()->eos_token_id(), 2);
  folder.Write("tokenizer_config.json", R"({"eos_token": "<|end|>"})");
  const auto tokenizer = folder.Load().value();
  EXPECT_EQ(tokenizer->eos_token_id(), 1);
  EXPECT_EQ(tokenizer->bos_token_id(), 0);
}

TEST(TokenizerLoadTest, AddBosTokenDropsTheTokenThatTheProcessorAdds) {
  ModelFolder folder;
  folder.Write("tokenizer_config.json", R"({"add_bos_token": false, "bos_token": "<|begin|>"})");
  const auto tokenizer = folder.Load().value();
  EXPECT_EQ(tokenizer->Encode("a", true).value(), tokenizer->Encode("a", false).value());
  // One that is in the text stays.
  EXPECT_EQ(tokenizer->Encode("<|begin|>", true).value(), std::vector<int32_t>{0});
}

TEST(TokenizerLoadTest, AddBosTokenAddsOneThatTheProcessorDoesNot) {
  ModelFolder folder("fallback");
  EXPECT_TRUE(folder.Load().value()->Encode("", true).value().empty());
  folder.Write("tokenizer_config.json", R"({"add_bos_token": true, "bos_token": "<s>"})");
  EXPECT_EQ(folder.Load().value()->Encode("", true).value(), std::vector<int32_t>{1});
  EXPECT_TRUE(folder.Load().value()->Encode("", false).value().empty());
}

TEST(TokenizerLoadTest, DefaultOfNamedTemplatesCounts) {
  ModelFolder folder;
  folder.Write("tokenizer_config.json", R"({"chat_template": [
      {"name": "tool_use", "template": "tools"}, {"name": "default", "template": "plain"}]})");
  EXPECT_EQ(folder.Load().value()->RenderChat(kHello, true).value(), "plain");
  folder.Write("tokenizer_config.json",
               R"({"chat_template": [{"name": "tool_use", "template": "tools"}]})");
  EXPECT_FALSE(folder.Load().value()->has_chat_template());
}

TEST(TokenizerLoadTest, TemplateFileWinsOverConfig) {
  ModelFolder folder;
  folder.Write("tokenizer_config.json", R"({"chat_template": "from config"})");
  folder.Write("chat_template.jinja", "from file");
  EXPECT_EQ(folder.Load().value()->RenderChat(kHello, true).value(), "from file");
}

TEST(TokenizerLoadTest, BrokenTemplateFailsTheLoad) {
  ModelFolder folder;
  const absl::Status status = folder.Write("chat_template.jinja", "{% for m in %}").Load().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("chat template"));
}

TEST(TokenizerLoadTest, TruncationAndPaddingOfTheFileAreIgnored) {
  nlohmann::json json = ReadJson(DataFolder("bpe") + "/tokenizer.json");
  json["truncation"] = {
      {"direction", "Right"}, {"max_length", 2}, {"strategy", "LongestFirst"}, {"stride", 0}};
  ModelFolder folder;
  const auto tokenizer = folder.Write("tokenizer.json", json.dump()).Load().value();
  EXPECT_GT(tokenizer->Encode("The tenon holds.", true).value().size(), 2u);
}

}  // namespace
}  // namespace tenon
