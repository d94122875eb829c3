#include "adapters/registry/adapter_selection.h"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

namespace tenon {
namespace {

AdapterHandle Handle(absl::string_view name, absl::string_view digest) {
  AdapterInfo info;
  info.id = {"acme", std::string(name), 1};
  info.digest = std::string(digest);
  return AdapterHandle(std::make_shared<const AdapterInfo>(std::move(info)));
}

std::string Key(std::vector<WeightedAdapter> adapters) {
  return AdapterSelection(std::move(adapters)).key();
}

TEST(AdapterSelectionTest, BaseHasTheEmptyKey) {
  EXPECT_EQ(AdapterSelection().key(), "");
  EXPECT_TRUE(AdapterSelection().is_base());
  EXPECT_EQ(AdapterSelection(std::vector<WeightedAdapter>{}).key(), "");
}

TEST(AdapterSelectionTest, KeyIsOfContentNotOfNames) {
  EXPECT_EQ(Key({{Handle("fr", "aa"), 1.0f}}), Key({{Handle("de", "aa"), 1.0f}}));
  EXPECT_NE(Key({{Handle("fr", "aa"), 1.0f}}), Key({{Handle("fr", "bb"), 1.0f}}));
}

TEST(AdapterSelectionTest, KeyHoldsDigestAndWeightBits) {
  EXPECT_EQ(Key({{Handle("fr", "aa"), 1.0f}}), "aa*3f800000");
  EXPECT_EQ(Key({{Handle("fr", "aa"), 0.5f}, {Handle("de", "bb"), -2.0f}}),
            "aa*3f000000+bb*c0000000");
}

TEST(AdapterSelectionTest, DifferentSelectionsHaveDifferentKeys) {
  const AdapterHandle a = Handle("a", "aa"), b = Handle("b", "bb");
  const float next = std::nextafterf(1.0f, 2.0f);
  const std::set<std::string> keys = {
      Key({}),       Key({{a, 1}}),         Key({{a, next}}),      Key({{a, -1}}),
      Key({{b, 1}}), Key({{a, 1}, {b, 1}}), Key({{b, 1}, {a, 1}}), Key({{a, 1}, {a, 1}})};
  EXPECT_EQ(keys.size(), 8u);
}

TEST(AdapterSelectionTest, WeightZeroIsNamedAndNotSelected) {
  AdapterInfo info;
  info.num_virtual_tokens = 7;
  const AdapterHandle prefix(std::make_shared<const AdapterInfo>(info));
  const AdapterSelection none({{Handle("fr", "aa"), 0.0f}, {prefix, -0.0f}});
  EXPECT_TRUE(none.is_base());
  EXPECT_EQ(none.key(), "");
  EXPECT_EQ(none.num_virtual_tokens(), 0);
  EXPECT_EQ(none.named().size(), 2u);
  const AdapterSelection one({{Handle("fr", "aa"), 0.0f}, {prefix, 1.0f}});
  EXPECT_EQ(one.num_virtual_tokens(), 7);
  EXPECT_EQ(one.adapters().size(), 1u);
}

TEST(AdapterSelectionTest, KeepsAdaptersAlive) {
  auto info = std::make_shared<const AdapterInfo>();
  const std::weak_ptr<const AdapterInfo> weak = info;
  AdapterSelection selection({{AdapterHandle(std::move(info)), 1.0f}});
  EXPECT_FALSE(weak.expired());
  selection = AdapterSelection();
  EXPECT_TRUE(weak.expired());
}

}  // namespace
}  // namespace tenon
