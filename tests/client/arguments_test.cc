#include "client/tenonctl/arguments.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tenon {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const std::vector<FlagSpec> kFlags = {{"max-tokens", "N", "tokens at most"},
                                      {"stop", "TEXT", "where to stop"},
                                      {"json", "", "as JSON"},
                                      {"no-cache", "", "begins with no"},
                                      {"help", "", "explain"}};

struct Parsed {
  Arguments arguments;
  absl::Status status;
  size_t num_left = 0;
};

Parsed Parse(const std::vector<std::string>& args, bool stop_at_word = false) {
  Parsed parsed;
  std::span<const std::string> rest = args;
  parsed.status = parsed.arguments.Parse(rest, kFlags, stop_at_word);
  parsed.num_left = rest.size();
  return parsed;
}

TEST(ArgumentsTest, FlagsTakeDashesUnderscoresAndBothSpellingsOfAValue) {
  for (const std::vector<std::string>& args : {std::vector<std::string>{"--max-tokens=7"},
                                               {"--max_tokens=7"},
                                               {"--max-tokens", "7"},
                                               {"--max_tokens", "7"},
                                               {"--max-tokens=3", "--max-tokens=7"}}) {
    EXPECT_EQ(Parse(args).arguments.GetInt("max-tokens").value(), 7);
  }
}

TEST(ArgumentsTest, SwitchDoesNotTakeTheNextWord) {
  const Parsed parsed = Parse({"--json", "a", "b"});
  EXPECT_TRUE(parsed.arguments.GetSwitch("json"));
  EXPECT_THAT(parsed.arguments.words(), ElementsAre("a", "b"));
}

TEST(ArgumentsTest, SwitchMayBeTurnedOff) {
  EXPECT_FALSE(Parse({"--json", "--no-json"}).arguments.GetSwitch("json"));
  EXPECT_FALSE(Parse({"--json=false"}).arguments.GetSwitch("json"));
  EXPECT_TRUE(Parse({"--no-json", "--json=true"}).arguments.GetSwitch("json"));
  EXPECT_TRUE(Parse({"--no-cache"}).arguments.GetSwitch("no-cache"));
  EXPECT_FALSE(Parse({}).arguments.GetSwitch("json"));
}

TEST(ArgumentsTest, ValueMayLookLikeAFlagAndHoldEqualsSigns) {
  EXPECT_EQ(Parse({"--stop=--a=b"}).arguments.GetText("stop", ""), "--a=b");
  EXPECT_EQ(Parse({"--stop", "--json"}).arguments.GetText("stop", ""), "--json");
  EXPECT_EQ(Parse({"--stop="}).arguments.GetText("stop", "none"), "");
}

TEST(ArgumentsTest, RepeatedFlagKeepsAllValuesInOrder) {
  EXPECT_THAT(Parse({"--stop=b", "x", "--stop", "a"}).arguments.GetTexts("stop"),
              ElementsAre("b", "a"));
}

TEST(ArgumentsTest, DoubleDashEndsFlagsAndDashIsAWord) {
  EXPECT_THAT(Parse({"-", "--", "--json", "--"}).arguments.words(),
              ElementsAre("-", "--json", "--"));
}

TEST(ArgumentsTest, StopsInFrontOfTheFirstWord) {
  const Parsed parsed = Parse({"--json", "chat", "--unknown"}, /*stop_at_word=*/true);
  EXPECT_TRUE(parsed.status.ok());
  EXPECT_EQ(parsed.num_left, 2u);
}

TEST(ArgumentsTest, MistakesAreNamed) {
  const struct {
    std::vector<std::string> args;
    const char* message;
  } cases[] = {{{"--unknown"}, "unknown flag --unknown"},
               {{"--no-stop"}, "unknown flag --no-stop"},
               {{"-j"}, "unknown flag -j"},
               {{"--stop"}, "--stop needs a value"},
               {{"--json=1"}, "'1' is not true or false"}};
  for (const auto& one : cases) {
    const absl::Status status = Parse(one.args).status;
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(one.message));
  }
}

TEST(ArgumentsTest, ValuesOfAnotherTypeAreNamed) {
  for (const char* value : {"", "x", "1.5", "99999999999"}) {
    const Arguments arguments = Parse({std::string("--max-tokens=") + value}).arguments;
    EXPECT_THAT(std::string(arguments.GetInt("max-tokens").status().message()),
                HasSubstr(std::string("--max-tokens: '") + value));
  }
  const Arguments arguments = Parse({"--stop=-1"}).arguments;
  EXPECT_FALSE(arguments.GetUint64("stop").ok());
  EXPECT_FALSE(arguments.GetDuration("stop", absl::Seconds(1)).ok());
  EXPECT_EQ(arguments.GetFloat("stop").value(), -1.0f);
}

TEST(ArgumentsTest, NumbersThatWereNotGivenAreNotThere) {
  const Arguments arguments = Parse({}).arguments;
  EXPECT_EQ(arguments.GetInt("max-tokens").value(), std::nullopt);
  EXPECT_EQ(arguments.GetUint64("max-tokens").value(), std::nullopt);
  EXPECT_EQ(arguments.GetFloat("max-tokens").value(), std::nullopt);
  EXPECT_EQ(arguments.GetDuration("stop", absl::Seconds(3)).value(), absl::Seconds(3));
  EXPECT_EQ(Parse({"--stop=1m30s"}).arguments.GetDuration("stop", {}).value(), absl::Seconds(90));
}

TEST(ArgumentsTest, HelpHasShortForm) { EXPECT_TRUE(Parse({"-h"}).arguments.GetSwitch("help")); }

TEST(DescribeFlagsTest, AlignsTheHelp) {
  EXPECT_THAT(DescribeFlags(kFlags), HasSubstr("  --max-tokens=N  tokens at most\n"
                                               "  --stop=TEXT     where to stop\n"
                                               "  --json          as JSON\n"));
}

}  // namespace
}  // namespace tenon
