#include "client/tenonctl/adapter_table.h"

#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace tenon {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

class AdapterTableTest : public testing::Test {
 protected:
  std::vector<std::string> Apply(const std::string& text) {
    v1::WatchAdaptersResponse message;
    EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(text, &message)) << text;
    return table_.Apply(message);
  }
  void Begin() {
    Apply(R"(generation: 4 reset: true complete: true
             names { name: 'de' versions { version: 1 state: ADAPTER_STATE_LIVE } }
             names { name: 'fr'
                     versions { version: 1 state: ADAPTER_STATE_LIVE aliases: 'latest' }
                     versions { version: 2 state: ADAPTER_STATE_LIVE aliases: 'canary' }
                     aliases { key: 'latest' value: 1 } aliases { key: 'canary' value: 2 } })");
  }
  AdapterTable table_;
};

TEST_F(AdapterTableTest, FullSetIsShownNewestFirstWithinAName) {
  Begin();
  EXPECT_EQ(table_.generation(), 4);
  EXPECT_TRUE(table_.complete());
  const std::string text = table_.Render(false, 100);
  EXPECT_LT(text.find("de "), text.find("canary"));
  EXPECT_LT(text.find("canary"), text.find("latest"));
  EXPECT_THAT(text, Not(HasSubstr("\x1b")));
}

TEST_F(AdapterTableTest, ChangesAreTold) {
  Begin();
  EXPECT_THAT(Apply(R"(generation: 5 complete: true
               names { name: 'fr'
                       versions { version: 2 state: ADAPTER_STATE_QUARANTINED }
                       versions { version: 3 state: ADAPTER_STATE_LIVE }
                       aliases { key: 'latest' value: 3 } aliases { key: 'next' value: 3 }
                       split { alias: 'next' percent: 5 } }
               removed: 'de')"),
              ElementsAre("fr@2 is quarantined", "fr@3 is live", "fr@1 is deleted",
                          "fr: canary 2 -> none", "fr: latest 1 -> 3", "fr: next none -> 3",
                          "fr: split next 5%, latest the rest", "de is deleted"));
  EXPECT_THAT(table_.Render(true, 100), HasSubstr("\x1b[1mfr"));
  EXPECT_THAT(table_.Render(true, 100), Not(HasSubstr("de ")));
}

TEST_F(AdapterTableTest, FullSetAfterAGapTellsTheDifferenceOnly) {
  Begin();
  EXPECT_THAT(Apply(R"(generation: 9 reset: true complete: true
                       names { name: 'fr'
                               versions { version: 1 state: ADAPTER_STATE_LIVE }
                               versions { version: 2 state: ADAPTER_STATE_LIVE }
                               aliases { key: 'latest' value: 2 }
                               aliases { key: 'canary' value: 2 } })"),
              ElementsAre("fr: latest 1 -> 2", "de is deleted"));
}

TEST_F(AdapterTableTest, SetInSeveralMessagesIsWholeAtItsLast) {
  Begin();
  EXPECT_THAT(Apply("generation: 9 reset: true names { name: 'it' "
                    "versions { version: 1 state: ADAPTER_STATE_LIVE } }"),
              ElementsAre("it@1 is live"));
  EXPECT_FALSE(table_.complete());
  EXPECT_THAT(Apply("generation: 9 complete: true"), ElementsAre("de is deleted", "fr is deleted"));
  EXPECT_TRUE(table_.complete());
}

TEST_F(AdapterTableTest, SameAgainIsNoNews) {
  Begin();
  EXPECT_THAT(Apply("generation: 4 complete: true"), IsEmpty());
}

TEST_F(AdapterTableTest, RowsBeyondTheScreenAreCounted) {
  Begin();
  const std::string text = table_.Render(false, 2);
  EXPECT_THAT(text, HasSubstr("... and 1 more"));
  EXPECT_THAT(text, Not(HasSubstr("latest\n")));
}

}  // namespace
}  // namespace tenon
