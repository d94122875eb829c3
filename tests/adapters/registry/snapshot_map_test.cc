#include "adapters/registry/snapshot_map.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

#include "absl/strings/str_cat.h"

namespace tenon {
namespace {

using Map = SnapshotMap<std::shared_ptr<const int>>;

std::shared_ptr<const int> Value(int value) { return std::make_shared<const int>(value); }

TEST(SnapshotMapTest, FindsWhatWasSet) {
  Map map;
  EXPECT_TRUE(map.empty());
  EXPECT_EQ(map.Find("a"), nullptr);
  map.Set("a", Value(1));
  map.Set("a", Value(2));
  ASSERT_NE(map.Find("a"), nullptr);
  EXPECT_EQ(**map.Find("a"), 2);
  map.Erase("b");
  EXPECT_FALSE(map.empty());
  map.Erase("a");
  EXPECT_TRUE(map.empty());
  EXPECT_EQ(map.Find("a"), nullptr);
}

TEST(SnapshotMapTest, CopiesDoNotSeeLaterChanges) {
  Map before;
  for (int i = 0; i < 500; ++i) {
    before.Set(absl::StrCat(i), Value(i));
  }
  Map after = before;
  after.Set("7", Value(-7));
  after.Erase("8");
  after.Set("new", Value(0));
  EXPECT_EQ(**before.Find("7"), 7);
  EXPECT_EQ(**before.Find("8"), 8);
  EXPECT_EQ(before.Find("new"), nullptr);
  EXPECT_EQ(**after.Find("7"), -7);
  EXPECT_EQ(after.Find("8"), nullptr);
}

TEST(SnapshotMapTest, AgreesWithStdMapOverRandomOperations) {
  const uint64_t seed = 7;
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  std::mt19937_64 random(seed);
  Map map;
  std::map<std::string, int> expected;
  for (int i = 0; i < 5000; ++i) {
    const std::string name = absl::StrCat(random() % 200);
    if (random() % 3 == 0) {
      map.Erase(name);
      expected.erase(name);
    } else {
      map.Set(name, Value(i));
      expected[name] = i;
    }
  }
  std::map<std::string, int> found;
  map.ForEach([&](const std::string& name, const auto& value) { found[name] = *value; });
  EXPECT_EQ(found, expected);
}

}  // namespace
}  // namespace tenon
