#include "server/model/rope_table.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <string>
#include <vector>

#include "tests/server/model/config_text.h"
#include "tests/source_dir.h"

namespace tenon {
namespace {

using nlohmann::json;

RopeConfig Parse(const std::string& text) {
  const absl::StatusOr<ModelConfig> config = ParseModelConfig(text);
  EXPECT_TRUE(config.ok()) << config.status();
  return config->ropes.at(0);
}

RopeConfig Dynamic() {
  return Parse(ConfigWith("rope_scaling", {{"type", "dynamic"}, {"factor", 2.0}}));
}

float At(const at::Tensor& table, int64_t row, int64_t column) {
  return table.const_data_ptr<float>()[row * table.size(1) + column];
}

// rope_frequencies.json comes from transformers 5.23 (make_rope_frequencies.py).
TEST(RopeInverseFrequenciesTest, EveryTypeEqualsTheReference) {
  std::ifstream file(SourcePath("tests/server/model/data/rope_frequencies.json"));
  const json cases = json::parse(file);
  ASSERT_GE(cases.size(), 14u);
  for (const json& entry : cases) {
    SCOPED_TRACE(entry.at("name").get<std::string>());
    const RopeConfig config = Parse(entry.at("config").dump());
    const std::vector<float> frequencies =
        RopeInverseFrequencies(config, entry.at("length").get<int64_t>());
    const auto expected = entry.at("inv_freq").get<std::vector<float>>();
    ASSERT_EQ(frequencies.size(), expected.size());
    for (size_t i = 0; i < expected.size(); ++i) {
      // Two units in the last place of fp32; most are equal to the bit.
      EXPECT_NEAR(frequencies[i], expected[i], 2.4e-7f * expected[i]) << i;
    }
    EXPECT_NEAR(config.attention_scaling, entry.at("attention_scaling").get<double>(), 1e-12);
  }
}

TEST(RopeTableTest, HoldsCosineAndSineOfEachAngle) {
  const RopeConfig config = Parse(SmallConfig().dump());  // head_dim 4: frequencies 1 and 0.01
  const RopeTable table(config, 64);
  const RopePosition tokens[] = {{0, 10}, {5, 10}, {63, 64}};
  const RopeRows rows = table.Select(tokens);
  ASSERT_EQ(rows.positions.size(0), 3);
  EXPECT_EQ(rows.positions.const_data_ptr<int64_t>()[2], 63);
  EXPECT_FLOAT_EQ(At(rows.cos, 0, 0), 1.0f);
  EXPECT_FLOAT_EQ(At(rows.sin, 0, 1), 0.0f);
  EXPECT_FLOAT_EQ(At(rows.cos, 5, 0), std::cos(5.0f));
  EXPECT_FLOAT_EQ(At(rows.sin, 63, 1), std::sin(0.63f));
}

TEST(RopeTableTest, YarnScalesCosineAndSine) {
  const RopeConfig config = Parse(
      ConfigWith("rope_scaling", {{"type", "yarn"}, {"factor", 4.0}, {"attention_factor", 1.25}}));
  const RopeTable table(config, 8);
  const RopePosition token{0, 1};
  EXPECT_FLOAT_EQ(At(table.Select({&token, 1}).cos, 0, 0), 1.25f);
}

TEST(RopeTableTest, OnlyDynamicDependsOnLength) {
  EXPECT_FALSE(RopeTable(Parse(SmallConfig().dump()), 8).depends_on_length());
  EXPECT_TRUE(RopeTable(Dynamic(), 8).depends_on_length());
}

TEST(RopeTableTest, DynamicIsPlainUpToTheModelsContext) {
  const RopeTable plain(Parse(SmallConfig().dump()), 128);
  const RopeTable dynamic(Dynamic(), 128);
  const RopePosition tokens[] = {{3, 64}, {63, 64}};
  const RopeRows rows = dynamic.Select(tokens);
  for (const int64_t position : {3, 63}) {
    EXPECT_EQ(At(rows.cos, position, 1), At(plain.Select(tokens).cos, position, 1));
  }
}

TEST(RopeTableTest, DynamicStretchesEachTokenByItsOwnLength) {
  const RopeConfig config = Dynamic();
  const RopeTable table(config, 128);
  const RopePosition tokens[] = {{3, 64}, {70, 71}, {70, 100}};
  const RopeRows rows = table.Select(tokens);
  for (int64_t t = 0; t < 3; ++t) {
    const std::vector<float> inv_freq = RopeInverseFrequencies(config, tokens[t].length);
    const int64_t row = rows.positions.const_data_ptr<int64_t>()[t];
    const float angle = static_cast<float>(tokens[t].position) * inv_freq[1];
    EXPECT_FLOAT_EQ(At(rows.cos, row, 1), std::cos(angle));
    EXPECT_FLOAT_EQ(At(rows.sin, row, 1), std::sin(angle));
  }
  EXPECT_NE(At(rows.sin, 1, 1), At(rows.sin, 2, 1));
}

}  // namespace
}  // namespace tenon
