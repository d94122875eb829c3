#include "adapters/registry/adapter_id.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "adapters/base/errors.h"

namespace tenon {
namespace {

using ::testing::HasSubstr;

TEST(AdapterIdTest, ToStringNamesTenantNameAndVersion) {
  EXPECT_EQ((AdapterId{"acme", "fr", 3}).ToString(), "acme/fr@3");
  EXPECT_EQ((AdapterRef{"fr", 3}).ToString(), "fr@3");
  EXPECT_EQ((AdapterRef{"fr", 0}).ToString(), "fr");
}

TEST(AdapterIdTest, OrdersByTenantNameVersion) {
  EXPECT_LT((AdapterId{"a", "z", 9}), (AdapterId{"b", "a", 1}));
  EXPECT_LT((AdapterId{"a", "a", 9}), (AdapterId{"a", "a", 10}));
}

TEST(ValidateNameTest, AcceptsTheAlphabet) {
  for (const std::string& name :
       {std::string("a"), std::string("A.b_c-9"), std::string("7b"), std::string(128, 'x')}) {
    EXPECT_TRUE(ValidateName("name", name).ok()) << name;
  }
}

TEST(ValidateNameTest, RefusesEverythingElseNamingFieldAndValue) {
  const struct {
    std::string name;
    const char* message;
  } kCases[] = {
      {"", "a name is needed"},
      {std::string(129, 'x'), "exceeds the limit of 128 bytes"},
      {std::string(300, 'x'), "(300 bytes)"},
      {".", "\".\" does not begin with"},
      {"..", "\"..\" does not begin with"},
      {".hidden", "does not begin with"},
      {"-rf", "does not begin with"},
      {"_a", "does not begin with"},
      {"../etc", "does not begin with"},
      {"a/b", "\"a/b\" has characters other"},
      {"a\\b", "has characters other"},
      {"a b", "has characters other"},
      {"a\nb", "\"a\\nb\" has characters other"},
      {"a@1", "has characters other"},
      {"a%2e", "has characters other"},
      {std::string("a\0b", 3), "\"a\\x00\\x62\" has characters other"},
      {"\xc3\xa9t\xc3\xa9", "does not begin with"},
      {"a\xe2\x80\xae", "has characters other"},
      {"a\xff", "\"a\\xff\" has characters other"},
      {"a\x7f", "has characters other"},
  };
  for (const auto& test : kCases) {
    const absl::Status status = ValidateName("adapter.name", test.name);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << test.name;
    EXPECT_THAT(std::string(status.message()), HasSubstr(test.message));
    ASSERT_TRUE(GetErrorDetail(status).has_value());
    EXPECT_EQ(GetErrorDetail(status)->subject, "adapter.name");
  }
}

TEST(ParseAdapterRefTest, ReadsNameAndOptionalVersion) {
  const auto live = ParseAdapterRef("adapter", "fr");
  ASSERT_TRUE(live.ok());
  EXPECT_EQ(live->name, "fr");
  EXPECT_EQ(live->version, 0);
  const auto pinned = ParseAdapterRef("adapter", "fr@9223372036854775807");
  ASSERT_TRUE(pinned.ok());
  EXPECT_EQ(pinned->name, "fr");
  EXPECT_EQ(pinned->version, INT64_MAX);
}

TEST(ParseAdapterRefTest, RefusesAnythingElse) {
  for (const std::string text : {"",
                                 "@",
                                 "@1",
                                 "fr@",
                                 "fr@0",
                                 "fr@-1",
                                 "fr@+1",
                                 "fr@01",
                                 "fr@1x",
                                 "fr@1@2",
                                 "fr@ 1",
                                 "fr@1 ",
                                 "fr@9223372036854775808",
                                 "fr@0x1",
                                 "fr@1.0",
                                 "a/b@1",
                                 "fr@-x",
                                 "fr@a b",
                                 "fr@7up",
                                 "fr@.a"}) {
    const auto ref = ParseAdapterRef("adapter", text);
    EXPECT_EQ(ref.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(ref.status().message()), HasSubstr("adapter: ")) << text;
  }
}

TEST(ParseAdapterRefTest, ReadsAliases) {
  const auto canary = ParseAdapterRef("adapter", "fr@canary");
  ASSERT_TRUE(canary.ok());
  EXPECT_EQ(canary->name, "fr");
  EXPECT_EQ(canary->version, 0);
  EXPECT_EQ(canary->alias, "canary");
  EXPECT_FALSE(canary->is_bare());
  EXPECT_TRUE(ParseAdapterRef("adapter", "fr")->is_bare());
  EXPECT_FALSE(ParseAdapterRef("adapter", "fr@1")->is_bare());
}

TEST(ValidateAliasTest, AliasIsNeverAVersion) {
  EXPECT_TRUE(ValidateAlias("alias", "latest").ok());
  EXPECT_TRUE(ValidateAlias("alias", "v2.1-rc_3").ok());
  EXPECT_TRUE(ValidateAlias("alias", std::string(64, 'x')).ok());
  for (const std::string& alias :
       {std::string(), std::string("7"), std::string("7a"), std::string("-a"), std::string("a@b"),
        std::string("a b"), std::string("a/b"), std::string("a\0b", 3), std::string(65, 'x')}) {
    const absl::Status status = ValidateAlias("alias", alias);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << alias;
    EXPECT_EQ(GetErrorDetail(status)->subject, "alias");
  }
}

TEST(ParseAdapterRefTest, RoundTrips) {
  for (const std::string text : {"fr", "fr@7", "a.b-c_d@123", "fr@canary"}) {
    EXPECT_EQ(ParseAdapterRef("adapter", text)->ToString(), text);
  }
}

}  // namespace
}  // namespace tenon
