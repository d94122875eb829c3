// Other servers have served one adapter's KV for another because a name, a salt and a digest were
// written behind each other without saying where one ends (vLLM #44701).
#include <gtest/gtest.h>

#include <bit>
#include <memory>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "adapters/registry/adapter_selection.h"
#include "server/scheduler/block_pool.h"
#include "server/scheduler/prefix_index.h"

namespace tenon {
namespace {

// What a client may choose (its adapters' names and, by their bytes, their digests; its tenant's
// name) made to look like what it may not (salts, separators, lengths, other people's digests).
std::vector<std::string> Crafted() {
  std::vector<std::string> words = {"",    "a",      "aa",     "0:",   "1:", "1:a",
                                    "64:", "base",   "4:base", "+",    "*",  "*3f800000",
                                    "a+a", "latest", "@1",     "fr@1", "\n", std::string(1, '\0')};
  words.push_back(std::string(64, '0'));
  words.push_back(absl::StrCat(std::string(64, '0'), "*3f800000"));
  words.push_back(absl::StrCat(std::string(64, '0'), "*3f800000+", std::string(64, '1')));
  return words;
}

AdapterHandle Handle(const std::string& name, const std::string& digest) {
  AdapterInfo info;
  info.id = {"acme", name, 1};
  info.digest = digest;
  return AdapterHandle(std::make_shared<const AdapterInfo>(std::move(info)));
}

// Selections of none, one and two adapters, and what makes them distinct.
std::vector<std::pair<std::string, std::string>> Selections() {
  std::vector<std::string> digests;
  for (const char digit : {'0', '1', 'a'}) {
    digests.push_back(std::string(64, digit));
  }
  const std::vector<float> weights = {1.0f, 0.5f, -1.0f, 1.0000001f, 8.0f};
  std::vector<std::pair<std::string, std::string>> selections = {{"base", ""}};
  for (const std::string& first : digests) {
    for (const float weight : weights) {
      const std::string one = absl::StrCat(first, " ", absl::Hex(std::bit_cast<uint32_t>(weight)));
      selections.emplace_back(one, AdapterSelection({{Handle("fr", first), weight}}).key());
      for (const std::string& second : digests) {
        for (const float other : weights) {
          selections.emplace_back(
              absl::StrCat(one, ", ", second, " ", absl::Hex(std::bit_cast<uint32_t>(other))),
              AdapterSelection({{Handle("fr", first), weight}, {Handle("de", second), other}})
                  .key());
        }
      }
    }
  }
  return selections;
}

TEST(KeyCollisionTest, AdapterNameThatCollidesWithASalt) {
  BlockPool pool(4, 2);
  const std::vector<std::string> words = Crafted();
  const std::vector<std::pair<std::string, std::string>> selections = Selections();
  std::unordered_map<std::string, std::string> roots;  // root -> who has it
  int64_t num_tuples = 0;
  for (const std::string& salt : words) {
    const PrefixIndex index(salt, &pool);
    for (const std::string& tenant : words) {
      for (const auto& [what, key] : selections) {
        ++num_tuples;
        const std::string who = absl::StrCat(salt, " | ", tenant, " | ", what);
        const auto [position, is_new] = roots.emplace(index.Begin(tenant, key).root, who);
        ASSERT_TRUE(is_new) << who << " has the root of " << position->second;
      }
      for (const std::string& crafted : words) {  // a selection key that no registry would make
        if (!crafted.empty()) {
          ++num_tuples;
          const std::string who = absl::StrCat(salt, " | ", tenant, " | raw ", crafted);
          const auto [position, is_new] = roots.emplace(index.Begin(tenant, crafted).root, who);
          // The one word that is what an adapter of 64 zeros with weight 1 really has.
          const bool is_real = crafted == std::string(64, '0') + "*3f800000";
          ASSERT_TRUE(is_new || is_real) << who << " has the root of " << position->second;
        }
      }
    }
  }
  RecordProperty("tuples", static_cast<int>(num_tuples));
  EXPECT_GE(num_tuples, 100'000);
}

TEST(KeyCollisionTest, NamesDoNotCountAndBytesDo) {
  const std::string digest(64, 'd');
  EXPECT_EQ(AdapterSelection({{Handle("fr", digest), 1.0f}}).key(),
            AdapterSelection({{Handle("salt", digest), 1.0f}}).key());
  EXPECT_NE(AdapterSelection({{Handle("fr", digest), 1.0f}}).key(),
            AdapterSelection({{Handle("fr", std::string(64, 'e')), 1.0f}}).key());
}

}  // namespace
}  // namespace tenon
