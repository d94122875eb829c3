#include "adapters/store/name_state.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "adapters/base/error_metadata.h"
#include "adapters/base/errors.h"

namespace tenon {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::Pair;
using ::testing::SizeIs;

constexpr char kSha256[] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

class NameStateTest : public testing::Test {
 protected:
  NameStateTest() {
    state_.tenant = "acme";
    state_.name = "fr";
  }

  static StoredVersion Version(int64_t number) {
    StoredVersion version;
    version.info.id = {"acme", "fr", number};
    version.info.digest = std::string(kSha256, 63) + static_cast<char>('0' + number);
    version.info.method = "LORA";
    version.info.delta_norm_bound = 0.5;
    version.info.created = absl::FromUnixNanos(1'700'000'000'123'456'789);
    version.info.warnings = {"dropout is ignored", "\xff"};
    version.files = {{"adapter_model.safetensors", kSha256, 7}};
    return version;
  }
  absl::StatusOr<AliasChange> Add(int64_t number, const std::string& alias = "latest") {
    CommitOrder order;
    order.alias = alias;
    order.actor = "key:a";
    return state_.Add(Version(number), order, now_);
  }
  absl::StatusOr<AliasChange> Move(const std::string& alias, int64_t version,
                                   std::optional<int64_t> expected = std::nullopt) {
    return state_.MoveAlias(
        {"acme", "fr", alias, version, expected, AliasAction::kPromote, "key:b"}, now_);
  }
  static std::string ReasonOf(const absl::Status& status) {
    const auto detail = GetErrorDetail(status);
    return detail.has_value() ? detail->reason : "";
  }

  absl::Time now_ = absl::FromUnixSeconds(1'800'000'000);
  NameState state_;
};

TEST_F(NameStateTest, UploadMovesItsAliasInTheSameChange) {
  const auto first = Add(1);
  ASSERT_TRUE(first.ok());
  EXPECT_EQ(first->sequence, 1);
  ASSERT_TRUE(Add(2, "canary").ok());
  ASSERT_TRUE(Add(3, "").ok());
  EXPECT_THAT(state_.pointers.aliases, ElementsAre(Pair("canary", 2), Pair("latest", 1)));
  EXPECT_EQ(state_.last_version, 3);
  EXPECT_EQ(state_.changes, 3);
}

TEST_F(NameStateTest, SameVersionAgainChangesNothingUnlessItsAliasMoves) {
  ASSERT_TRUE(Add(1).ok());
  EXPECT_EQ(Add(1)->sequence, 0);
  EXPECT_EQ(state_.changes, 1);
  EXPECT_EQ(Add(1, "stable")->sequence, 2);
  EXPECT_EQ(state_.VersionWith(Version(1).info.digest), 1);
  EXPECT_EQ(state_.VersionWith("other"), 0);
}

TEST_F(NameStateTest, LostRaceIsAbortedWithWhatHolds) {
  ASSERT_TRUE(Add(1).ok());
  ASSERT_TRUE(Add(2).ok());
  ASSERT_TRUE(Move("stable", 1, 0).ok());
  const absl::Status lost = Move("stable", 2, 0).status();
  EXPECT_EQ(lost.code(), absl::StatusCode::kAborted);
  EXPECT_EQ(GetErrorMetadata(lost).at("current_version"), "1");
  EXPECT_EQ(Move("stable", 1, 7)->sequence, 0) << "to ask twice is fine";
}

TEST_F(NameStateTest, WhatIsNotThereIsNotFound) {
  ASSERT_TRUE(Add(1).ok());
  EXPECT_EQ(ReasonOf(Move("stable", 9).status()), "ADAPTER_NOT_FOUND");
  EXPECT_EQ(ReasonOf(Move("stable", 0).status()), "ALIAS_NOT_FOUND");
  EXPECT_FALSE(Move("7", 1).ok()) << "a version is no alias";
}

TEST_F(NameStateTest, VersionThatAliasesPointToStays) {
  ASSERT_TRUE(Add(1).ok());
  ASSERT_TRUE(Add(2).ok());
  EXPECT_EQ(ReasonOf(state_.Remove(2, {}, "key:a", now_).status()), "VERSION_IN_USE");
  const AliasMove back{"acme", "fr", "latest", 1, 2, AliasAction::kDelete, "key:a"};
  ASSERT_TRUE(state_.Remove(2, {back}, "key:a", now_).ok());
  EXPECT_THAT(state_.versions, SizeIs(1));
  EXPECT_EQ(state_.last_version, 2);
}

TEST_F(NameStateTest, WholeNameGoesAndItsHistoryStays) {
  ASSERT_TRUE(Add(1).ok());
  ASSERT_TRUE(Add(2, "canary").ok());
  ASSERT_TRUE(state_.SetSplit({{"canary", 500}}, "key:a", now_).ok());
  ASSERT_TRUE(state_.RemoveAll("key:a", now_).ok());
  EXPECT_THAT(state_.versions, IsEmpty());
  EXPECT_TRUE(state_.pointers == AdapterPointers());
  EXPECT_GT(state_.history.size(), 4u);
  EXPECT_EQ(state_.RemoveAll("key:a", now_).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(NameStateTest, AliasesAndHistoryAreBounded) {
  ASSERT_TRUE(Add(1).ok());
  for (int64_t i = 1; i < kMaxAliases; ++i) {
    ASSERT_TRUE(Move(absl::StrCat("a", i), 1).ok());
  }
  NameState copy = state_;
  EXPECT_EQ(ReasonOf(Move("more", 1).status()), "ALIASES_PER_ADAPTER");
  state_ = copy;
  ASSERT_TRUE(Add(2, "").ok());
  for (int64_t i = 0; i < kMaxHistory + 10; ++i) {
    ASSERT_TRUE(Move("a1", 1 + i % 2).ok());
  }
  EXPECT_THAT(state_.history, SizeIs(kMaxHistory));
}

TEST_F(NameStateTest, ObjectsSurviveTheirText) {
  ASSERT_TRUE(Add(1).ok());
  ASSERT_TRUE(Add(2, "canary").ok());
  ASSERT_TRUE(state_.SetSplit({{"canary", 500}}, "key:a", now_).ok());
  std::vector<int64_t> numbers;
  const auto read = DecodeName(EncodeName(state_, "n"), &numbers);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_THAT(numbers, ElementsAre(1, 2));
  EXPECT_EQ(read->last_version, 2);
  EXPECT_EQ(read->changes, 3);
  EXPECT_TRUE(read->pointers == state_.pointers);
  ASSERT_THAT(read->history, SizeIs(3));
  EXPECT_EQ(read->history[2].details, "canary=5%");
  EXPECT_NE(EncodeName(state_, "n"), EncodeName(state_, "m")) << "two writers differ";

  const auto version = DecodeVersion(EncodeVersion(Version(1), "n"));
  ASSERT_TRUE(version.ok()) << version.status();
  EXPECT_EQ(version->info.id, Version(1).info.id);
  EXPECT_EQ(version->info.created, Version(1).info.created);
  EXPECT_EQ(version->info.warnings[0], "dropout is ignored");
  EXPECT_EQ(version->files[0].num_bytes, 7);
}

TEST_F(NameStateTest, HostileTextsAreDataLoss) {
  ASSERT_TRUE(Add(1).ok());
  const std::string name = EncodeName(state_, "");
  const std::string version = EncodeVersion(Version(1), "");
  std::vector<int64_t> numbers;
  EXPECT_EQ(DecodeName(absl::StrReplaceAll(name, {{"\"format\":1", "\"format\":2"}}), &numbers)
                .status()
                .code(),
            absl::StatusCode::kFailedPrecondition);
  for (const auto& [from, to] : std::vector<std::pair<std::string, std::string>>{
           {"\"fr\"", "\"../fr\""},
           {"\"acme\"", "7"},
           {"[1]", "[0]"},
           {"[1]", "[\"1\"]"},
           {"\"latest\":1", "\"7\":1"},
           {"\"latest\":1", "\"latest\":5"},
           {"\"upload\"", "\"explode\""},
           {"\"split\":[]", "\"split\":[{\"alias\":\"a\"}]"},
           {"\"changes\":1", "\"x\":1"}}) {
    const std::string text = absl::StrReplaceAll(name, {{from, to}});
    ASSERT_NE(text, name) << from;
    numbers.clear();
    EXPECT_EQ(DecodeName(text, &numbers).status().code(), absl::StatusCode::kDataLoss) << text;
  }
  for (const auto& [from, to] : std::vector<std::pair<std::string, std::string>>{
           {"adapter_model.safetensors", "../../etc/passwd"},
           {kSha256, "../x"},
           {"\"version\":1", "\"version\":0"},
           {"\"num_bytes\":7", "\"num_bytes\":-1"},
           {"\"has_weight\":true", "\"has_weight\":\"yes\""}}) {
    const std::string text = absl::StrReplaceAll(version, {{from, to}});
    ASSERT_NE(text, version) << from;
    EXPECT_EQ(DecodeVersion(text).status().code(), absl::StatusCode::kDataLoss) << text;
  }
  EXPECT_EQ(DecodeVersion("").status().code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace tenon
