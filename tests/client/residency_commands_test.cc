#include "client/tenonctl/residency_commands.h"

#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_split.h"

namespace tenon {
namespace {

using ::testing::HasSubstr;
using ::testing::SizeIs;

v1::GetResidencyResponse Parse(const std::string& text) {
  v1::GetResidencyResponse response;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &response));
  return response;
}

std::vector<std::string> Lines(const std::string& text) {
  return absl::StrSplit(text, '\n', absl::SkipEmpty());
}

TEST(ResidencyCommandsTest, EachAdapterIsALineWithItsTier) {
  const v1::GetResidencyResponse response = Parse(R"pb(
    adapters {
      name: "fr"
      version: 3
      state: RESIDENCY_STATE_MERGED
      stored_bytes: 1024
      device_bytes: 2048
      merged_bytes: 3145728
      pinned: true
      num_requests: 7
      hits: 41
      last_use_time { seconds: 1000 }
      load_time { nanos: 3200000 }
      merge_time { seconds: 2 }
      merge_mode: MERGE_MODE_ALWAYS
    }
    adapters {
      name: "sql"
      version: 1
      state: RESIDENCY_STATE_STORED
      stored_bytes: 1024
      merge_mode: MERGE_MODE_NEVER
    })pb");
  const std::vector<std::string> lines =
      Lines(FormatResidency(response, absl::FromUnixSeconds(1090)));
  ASSERT_THAT(lines, SizeIs(3));
  for (const char* word : {"fr", "merged", "*", "1.0 KiB", "2.0 KiB", "3.0 MiB", "7", "41",
                           "3.2 ms", "2.0 s", "1m30s ago"}) {
    EXPECT_THAT(lines[1], HasSubstr(word));
  }
  EXPECT_THAT(lines[2], HasSubstr("stored"));
  EXPECT_THAT(lines[2], HasSubstr("never"));
}

TEST(ResidencyCommandsTest, TotalsFollowForOperators) {
  const v1::GetResidencyResponse response = Parse(R"pb(
    totals {
      device_bytes: 1024
      device_budget_bytes: 1048576
      device_hits: 3
      device_misses: 1
      loads: 2
      evictions: 1
    })pb");
  const std::string text = FormatResidency(response, absl::UnixEpoch());
  EXPECT_THAT(text, HasSubstr("75.0%"));
  EXPECT_THAT(text, HasSubstr("2 loads, 0 failed, 1 evictions"));
  EXPECT_THAT(FormatResidency(Parse(""), absl::UnixEpoch()), Not(HasSubstr("BUDGET")));
}

TEST(ResidencyCommandsTest, CommandsNameWhatTheyTake) {
  const std::vector<Command> commands = MakeResidencyCommands();
  EXPECT_THAT(commands, SizeIs(6));
  for (const Command& command : commands) {
    EXPECT_TRUE(command.name.starts_with("adapters ")) << command.name;
    EXPECT_THAT(command.examples, HasSubstr(command.name));
    EXPECT_FALSE(command.is_admin);
  }
}

}  // namespace
}  // namespace tenon
