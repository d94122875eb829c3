#include "adapters/formats/peft_patterns.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "adapters/base/errors.h"

namespace tenon {
namespace {

using ::testing::HasSubstr;

constexpr char kQ0[] = "model.layers.0.self_attn.q_proj";
constexpr char kQ1[] = "model.layers.1.self_attn.q_proj";
constexpr char kUp10[] = "model.layers.10.mlp.up_proj";

PythonRegex Regex(absl::string_view pattern) { return *PythonRegex::Create("f", pattern); }

PythonRegex LayerRegex(absl::string_view pattern) {
  return *PythonRegex::Create("f", pattern, R"((?:^|.*?\.))", R"(\.(?P<idx>\d+)\.)");
}

TEST(PythonRegexTest, FullMatchCoversTheWholeName) {
  EXPECT_TRUE(Regex(R"(.*\.q_proj)").FullMatch(kQ0));
  EXPECT_FALSE(Regex("q_proj").FullMatch(kQ0));
  EXPECT_FALSE(Regex(R"(.*\.q_pro)").FullMatch(kQ0));
  EXPECT_TRUE(Regex(R"(model\.layers\.(0|1)\.self_attn\.[qk]_proj)").FullMatch(kQ1));
  EXPECT_TRUE(Regex("a|ab").FullMatch("ab"));  // back-tracks into the second branch
}

TEST(PythonRegexTest, WhatRe2ReadsOtherwiseOrNotAtAllIsRefused) {
  for (const char* pattern :
       {"a{,3}", "[[:alpha:]]", "(?=a)", "(?<!a)b", R"((a)\1)", "(", "a++", R"(a\Z)", "(?x) a"}) {
    const auto regex = PythonRegex::Create("target_modules", pattern);
    EXPECT_EQ(regex.status().code(), absl::StatusCode::kInvalidArgument) << pattern;
    EXPECT_EQ(GetErrorDetail(regex.status())->reason, "UNSUPPORTED_PATTERN") << pattern;
    EXPECT_THAT(std::string(regex.status().message()), HasSubstr("target_modules: pattern"));
  }
  EXPECT_THAT(std::string(PythonRegex::Create("f", std::string(5000, 'a')).status().message()),
              HasSubstr("limit of 4096 bytes"));
}

TEST(PythonRegexTest, MatchIndexTakesTheFirstNumber) {
  const PythonRegex first = Regex(R"(.*?\.[^.]*\.(?P<idx>\d+)\.)");
  EXPECT_EQ(first.MatchIndex(kUp10), 10);
  EXPECT_EQ(first.MatchIndex("model.layers.1.experts.5.up_proj"), 1);
  EXPECT_EQ(first.MatchIndex("layers.1.up_proj"), std::nullopt);  // PEFT wants two names before it
  EXPECT_EQ(LayerRegex("layers").MatchIndex("layers.1.up_proj"), 1);
  EXPECT_EQ(LayerRegex("h").MatchIndex("model.layers.1.up_proj"), std::nullopt);
  EXPECT_EQ(LayerRegex("layers").MatchIndex("m.layers.99999999999999999999.q"), std::nullopt);
}

TEST(ModuleNamesTest, ListMatchesWholeNamesAndSuffixesAtDots) {
  const ModuleNames names({"q_proj", "mlp.up_proj", "lm_head"});
  EXPECT_TRUE(names.Matches(kQ0));
  EXPECT_TRUE(names.Matches(kUp10));
  EXPECT_TRUE(names.Matches("lm_head"));
  EXPECT_FALSE(names.Matches("model.layers.0.self_attn.qq_proj"));
  EXPECT_FALSE(names.Matches("model.up_proj"));
  EXPECT_FALSE(names.Matches("q_proj.base"));
  EXPECT_FALSE(ModuleNames().Matches(kQ0));
}

TEST(TargetModulesTest, ExclusionWins) {
  TargetModules targets;
  targets.names = ModuleNames({"q_proj"});
  targets.excluded = ModuleNames({"layers.1.self_attn.q_proj"});
  EXPECT_TRUE(targets.Matches(kQ0));
  EXPECT_FALSE(targets.Matches(kQ1));
  targets.excluded = ModuleNames(Regex(R"(.*\.0\..*)"));
  EXPECT_FALSE(targets.Matches(kQ0));
  EXPECT_TRUE(targets.Matches(kQ1));
}

TEST(TargetModulesTest, AllLinearLeavesTheHeadAlone) {
  TargetModules targets;
  targets.all_linear = true;
  EXPECT_TRUE(targets.Matches(kQ0));
  EXPECT_FALSE(targets.Matches("lm_head"));
  EXPECT_FALSE(targets.Matches("model.lm_head"));
}

TEST(TargetModulesTest, LayersSelectByNumberUnlessTheWholeNameIsListed) {
  TargetModules targets;
  targets.names = ModuleNames({"q_proj", kQ0});
  targets.layers = {1, 10};
  targets.layer_patterns.push_back(Regex(R"(.*?\.[^.]*\.(?P<idx>\d+)\.)"));
  EXPECT_TRUE(targets.Matches(kQ1));
  EXPECT_TRUE(targets.Matches(kQ0));  // listed by its whole name
  EXPECT_FALSE(targets.Matches("model.layers.2.self_attn.q_proj"));
  EXPECT_FALSE(targets.Matches("model.q_proj"));
}

TEST(TargetModulesTest, FirstLayerPatternThatMatchesDecides) {
  TargetModules targets;
  targets.names = ModuleNames({"q_proj"});
  targets.layers = {1};
  targets.layer_patterns.push_back(LayerRegex("blocks"));
  targets.layer_patterns.push_back(LayerRegex("layers"));
  EXPECT_TRUE(targets.Matches(kQ1));
  EXPECT_TRUE(targets.Matches("blocks.1.q_proj"));
  EXPECT_FALSE(targets.Matches("blocks.0.layers.1.q_proj"));
}

TEST(PatternTableTest, FirstMatchInOrderWins) {
  PatternTable table;
  ASSERT_TRUE(table.Add("rank_pattern", R"(layers\.0\..*)", 3).ok());
  ASSERT_TRUE(table.Add("rank_pattern", "q_proj", 2).ok());
  ASSERT_TRUE(table.Add("rank_pattern", "layers.1.self_attn.q_proj", 9).ok());
  EXPECT_EQ(table.Find(kQ0), 3);
  EXPECT_EQ(table.Find(kQ1), 2);
  EXPECT_EQ(table.Find(kUp10), std::nullopt);
}

TEST(PatternTableTest, MatchesAsPythonDoes) {
  // (pattern, name, re.match(rf"(.*\.)?({pattern})$", name) is not None), checked with Python 3.11.
  const struct {
    const char* pattern;
    const char* module;
    bool matches;
  } kCases[] = {
      {"q_proj", "q_proj", true},
      {"q_proj", "xq_proj", false},
      {"q_proj", "x.q_proj", true},
      {"q_proj", "x.q_proj.y", false},
      {"a.b", "a.b", true},
      {"a.b", "axb", true},
      {"a.b", "x.axb", true},
      {"a.b", "xa.b", false},
      {"", "a.", true},
      {"", "a", false},
      {"", "", true},
      {".proj", "q.proj", false},
      {"..proj", "a.qxproj", true},
      {"q|v", "x.v", true},
      {"^q_proj", "x.q_proj", false},
      {"^q_proj", "q_proj", true},
      {"(q|k)_proj", "a.b.k_proj", true},
      {R"(\d+\.q)", "h.12.q", true},
      {R"(2\.q)", "h.12.q", false},
      {"mlp.*", "layers.0.mlp.up_proj", true},
      {"q-proj", "a.q-proj", true},
  };
  for (const auto& test : kCases) {
    PatternTable table;
    ASSERT_TRUE(table.Add("f", test.pattern, 1).ok()) << test.pattern;
    EXPECT_EQ(table.Find(test.module).has_value(), test.matches)
        << test.pattern << " on " << test.module;
  }
}

}  // namespace
}  // namespace tenon
