#include "server/model/generation_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace tenon {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

TEST(GenerationConfigTest, ReadsEndTokensAndDefaults) {
  const absl::StatusOr<GenerationConfig> config = ParseGenerationConfig(
      R"({"bos_token_id": 1, "eos_token_id": [2, 5], "pad_token_id": -1, "do_sample": true,
          "temperature": 0.6, "top_p": 0.9, "top_k": 40, "min_p": 0.05,
          "repetition_penalty": 1.1, "transformers_version": "5.23.0"})",
      100);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_THAT(config->eos_token_ids, ElementsAre(2, 5));
  EXPECT_EQ(config->bos_token_id, 1);
  EXPECT_EQ(config->pad_token_id, std::nullopt);
  EXPECT_EQ(config->do_sample, true);
  EXPECT_FLOAT_EQ(*config->temperature, 0.6f);
  EXPECT_FLOAT_EQ(*config->top_p, 0.9f);
  EXPECT_FLOAT_EQ(*config->min_p, 0.05f);
  EXPECT_EQ(config->top_k, 40);
  EXPECT_FLOAT_EQ(*config->repetition_penalty, 1.1f);
  EXPECT_TRUE(config->ignored_fields.empty());
}

TEST(GenerationConfigTest, AbsentFieldsStayAbsent) {
  const absl::StatusOr<GenerationConfig> config =
      ParseGenerationConfig(R"({"eos_token_id": 2, "temperature": null})", 100);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_THAT(config->eos_token_ids, ElementsAre(2));
  EXPECT_EQ(config->temperature, std::nullopt);
  EXPECT_EQ(config->do_sample, std::nullopt);
}

TEST(GenerationConfigTest, NamesTheFieldsThatItIgnores) {
  const absl::StatusOr<GenerationConfig> config =
      ParseGenerationConfig(R"({"num_beams": 4, "use_cache": true, "typical_p": 0.9})", 100);
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_THAT(config->ignored_fields, UnorderedElementsAre("num_beams", "typical_p"));
}

TEST(GenerationConfigTest, ValuesOutOfRangeAreInvalid) {
  for (const char* text :
       {R"({"eos_token_id": 100})", R"({"eos_token_id": ["2"]})", R"({"temperature": -0.1})",
        R"({"top_p": 0})", R"({"top_p": 1.5})", R"({"top_k": -1})", R"({"do_sample": 1})",
        R"({"repetition_penalty": 0})", "[]", "nonsense"}) {
    const absl::Status status = ParseGenerationConfig(text, 100).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(status.message()), HasSubstr("generation_config.json"));
  }
}

}  // namespace
}  // namespace tenon
