#include "adapters/base/json_text.h"

#include <gtest/gtest.h>

namespace tenon {
namespace {

TEST(JsonTextTest, WhatIsNoJsonIsDiscarded) {
  for (const char* const bad : {"", "{", "{\"a\": 1} 2", "\"\xff\""}) {
    EXPECT_TRUE(ParseJson(bad).is_discarded()) << bad;
  }
  EXPECT_EQ(ParseJson("[1, \"a\"]"), nlohmann::json({1, "a"}));
}

TEST(JsonTextTest, BytesThatAreNoUtf8AreReplaced) {
  EXPECT_EQ(JsonText({{"a", "\xff\u00e9"}}), "{\"a\":\"\ufffd\u00e9\"}");
}

}  // namespace
}  // namespace tenon
