#include "server/telemetry/logging.h"

#include <gtest/gtest.h>

#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"

namespace tenon {
namespace {

// What `log` writes to standard error.
template <typename Log>
std::string Capture(Log log) {
  testing::internal::CaptureStderr();
  log();
  return testing::internal::GetCapturedStderr();
}

class LoggingTest : public testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(SetLogLevel("info").ok()); }
};

TEST_F(LoggingTest, LineHasTimeLevelEventAndFieldsInOrder) {
  const std::string line = Capture([] {
    LogLine(LogLevel::kInfo, "upload").Add("request_id", "r-1").Add("bytes", 1024).Add("f", 0.5);
  });
  EXPECT_TRUE(absl::EndsWith(line, "Z level=info event=upload request_id=r-1 bytes=1024 f=0.5\n"))
      << line;
  EXPECT_EQ(line.substr(10, 1), "T") << line;
}

TEST_F(LoggingTest, ClientStringsForgeNeitherLinesNorFields) {
  const std::string line = Capture([] {
    LogLine(LogLevel::kInfo, "x").Add("name", "a\nlevel=error event=\"forged\"").Add("b", "c=d");
  });
  EXPECT_EQ(std::count(line.begin(), line.end(), '\n'), 1);
  EXPECT_TRUE(absl::StrContains(line, R"(name="a\nlevel=error event=\"forged\"")")) << line;
  EXPECT_TRUE(absl::StrContains(line, R"(b="c=d")")) << line;
}

TEST_F(LoggingTest, FormatCharactersAreText) {
  const std::string line = Capture([] { LogLine(LogLevel::kInfo, "{}%s"); });
  EXPECT_TRUE(absl::StrContains(line, "event={}%s")) << line;
}

TEST_F(LoggingTest, EmptyValueIsVisible) {
  EXPECT_EQ(QuoteLogValue(""), "\"\"");
  EXPECT_EQ(QuoteLogValue("plain"), "plain");
  EXPECT_EQ(QuoteLogValue("two words"), "\"two words\"");
  EXPECT_EQ(QuoteLogValue(std::string("\0", 1)), "\"\\000\"");
}

TEST_F(LoggingTest, StatusAppearsWithItsCode) {
  const std::string line =
      Capture([] { LogLine(LogLevel::kError, "x").Add("status", absl::NotFoundError("no fr")); });
  EXPECT_TRUE(absl::StrContains(line, "level=error")) << line;
  EXPECT_TRUE(absl::StrContains(line, "status=\"NOT_FOUND: no fr\"")) << line;
}

TEST_F(LoggingTest, LevelHidesWhatIsBelow) {
  ASSERT_TRUE(SetLogLevel("warning").ok());
  EXPECT_EQ(Capture([] { LogLine(LogLevel::kInfo, "hidden"); }), "");
  EXPECT_NE(Capture([] { LogLine(LogLevel::kWarning, "seen"); }), "");
}

TEST_F(LoggingTest, UnknownLevelIsRefusedByName) {
  const absl::Status status = SetLogLevel("loud");
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(absl::StrContains(status.message(), "'loud'"));
}

}  // namespace
}  // namespace tenon
