// The tokenizers and chat templates of the golden models, against what transformers made of them.
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "server/tokenizer/detokenizer.h"
#include "server/tokenizer/tokenizer.h"
#include "tests/server/tokenizer/test_models.h"
#include "tests/source_dir.h"

namespace tenon {
namespace {

// The folder of a golden model. SmolLM2 is not in the repository: tests/golden/make.sh puts it
// below .cache, and TENON_TEST_MODEL names another place.
std::string ModelOf(const std::filesystem::path& golden) {
  if (golden.filename() != "smollm2") {
    return golden / "model";
  }
  const char* folder = std::getenv("TENON_TEST_MODEL");
  return folder != nullptr ? folder : SourcePath(".cache/golden/smollm2");
}

std::vector<std::string> GoldenFolders() {
  std::vector<std::string> folders;
  std::error_code error;
  for (const auto& entry :
       std::filesystem::directory_iterator(SourcePath("tests/golden/data"), error)) {
    if (std::filesystem::exists(entry.path() / "tokenizer_cases.json")) {
      folders.push_back(entry.path());
    }
  }
  std::sort(folders.begin(), folders.end());
  return folders;
}

class TokenizerGoldenTest : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    const std::string model = ModelOf(GetParam());
    if (!std::filesystem::exists(model)) {
      GTEST_SKIP() << "no model in " << model;
    }
    absl::StatusOr<std::unique_ptr<Tokenizer>> loaded = Tokenizer::Load(model);
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    tokenizer_ = *std::move(loaded);
    cases_ = ReadJson(GetParam() + "/tokenizer_cases.json");
  }

  std::unique_ptr<Tokenizer> tokenizer_;
  nlohmann::json cases_;
};

TEST_P(TokenizerGoldenTest, EncodesAndDecodesAsTransformersDoes) {
  for (const nlohmann::json& one : cases_["encodings"]) {
    const std::string text = one["text"];
    SCOPED_TRACE(text.substr(0, 80));
    const auto ids = one["ids"].get<std::vector<int32_t>>();
    EXPECT_EQ(tokenizer_->Encode(text, true).value(), ids);
    EXPECT_EQ(tokenizer_->Decode(ids, false).value(), one["decoded"].get<std::string>());
    EXPECT_EQ(tokenizer_->Decode(ids, true).value(), one["decoded_plain"].get<std::string>());
  }
}

TEST_P(TokenizerGoldenTest, StreamsWhatItDecodes) {
  for (const nlohmann::json& one : cases_["encodings"]) {
    IncrementalDetokenizer detokenizer(tokenizer_.get());
    std::string text;
    for (const auto& id : one["ids"]) {
      text += detokenizer.Append(id.get<int32_t>()).value();
    }
    text += detokenizer.Flush().value();
    EXPECT_EQ(text, one["decoded_plain"].get<std::string>());
  }
}

TEST_P(TokenizerGoldenTest, RendersChatsAsTransformersDoes) {
  for (const nlohmann::json& chat : cases_["chat_templates"]) {
    std::vector<ChatTurn> turns;
    for (const nlohmann::json& message : chat["messages"]) {
      turns.push_back({message["role"], message["content"]});
    }
    EXPECT_EQ(tokenizer_->RenderChat(turns, chat["add_generation_prompt"]).value(),
              chat["rendered"].get<std::string>());
  }
}

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(TokenizerGoldenTest);
INSTANTIATE_TEST_SUITE_P(Models, TokenizerGoldenTest, testing::ValuesIn(GoldenFolders()),
                         [](const auto& param_info) {
                           std::string name = std::filesystem::path(param_info.param).filename();
                           std::erase(name, '-');
                           return name;
                         });

}  // namespace
}  // namespace tenon
