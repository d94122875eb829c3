// Aliases, splits and history in a local store.
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "adapters/base/error_metadata.h"
#include "adapters/base/errors.h"
#include "gmock/gmock.h"
#include "tests/adapters/store/store_test_fixture.h"

namespace tenon {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Pair;

class StoreAliasesTest : public StoreTest {
 protected:
  // fr@1 ... fr@count; latest points to the last.
  void PutVersions(int count) {
    for (int i = 1; i <= count; ++i) {
      ASSERT_TRUE(Put("acme", "fr", AdapterFiles(absl::StrCat("weights-", i))).ok());
    }
  }
  absl::StatusOr<NameChange> Move(const std::string& alias, int64_t version,
                                  std::optional<int64_t> expected = std::nullopt,
                                  const std::string& actor = "key:ops") {
    return store_->MoveAlias(
        {"acme", "fr", alias, version, expected, AliasAction::kPromote, actor});
  }
  std::map<std::string, int64_t> Aliases() {
    const absl::StatusOr<AdapterName> name = store_->Name("acme", "fr");
    EXPECT_TRUE(name.ok()) << name.status();
    return {name->pointers.aliases.begin(), name->pointers.aliases.end()};
  }
  // "promote canary 1>2 key:ops" for each line.
  std::vector<std::string> History() {
    const absl::StatusOr<std::vector<AliasChange>> history = store_->History("acme", "fr");
    EXPECT_TRUE(history.ok()) << history.status();
    std::vector<std::string> lines;
    for (const AliasChange& change : *history) {
      lines.push_back(absl::StrCat(AliasActionName(change.action), " ",
                                   change.alias.empty() ? "-" : change.alias, " ", change.from, ">",
                                   change.to, " ", change.actor, change.details));
    }
    return lines;
  }
  int64_t Generation() { return store_->Name("acme", "fr")->generation; }
};

TEST_F(StoreAliasesTest, UploadMovesLatestInTheSameStep) {
  PutVersions(2);
  EXPECT_THAT(Aliases(), ElementsAre(Pair("latest", 2)));
  EXPECT_THAT(History(), ElementsAre("upload latest 0>1 ", "upload latest 1>2 "));
}

TEST_F(StoreAliasesTest, UploadMovesTheAliasItNamesOrNone) {
  PutVersions(1);
  ASSERT_TRUE(Commit("acme", "fr", AdapterFiles("b"), {"canary", std::nullopt, "key:ci"}).ok());
  ASSERT_TRUE(Commit("acme", "fr", AdapterFiles("c"), {"", std::nullopt, "key:ci"}).ok());
  EXPECT_THAT(Aliases(), ElementsAre(Pair("canary", 2), Pair("latest", 1)));
  EXPECT_THAT(History(),
              ElementsAre("upload latest 0>1 ", "upload canary 0>2 key:ci", "upload - 0>3 key:ci"));
}

TEST_F(StoreAliasesTest, UploadThatLostItsRaceLeavesNothing) {
  PutVersions(2);
  const absl::Status lost =
      Commit("acme", "fr", AdapterFiles("late"), {"latest", 1, "key:ci"}).status();
  EXPECT_TRUE(absl::IsAborted(lost)) << lost;
  EXPECT_EQ(GetErrorMetadata(lost).at("current_version"), "2");
  EXPECT_EQ(store_->Name("acme", "fr")->versions.size(), 2u);
  EXPECT_EQ(CountEntries(blobs()), 3) << "one configuration, two weights";
  EXPECT_EQ(Put("acme", "fr", AdapterFiles("next"))->id.version, 3) << "no number was used up";
}

TEST_F(StoreAliasesTest, RetriedUploadIsNoLostRace) {
  PutVersions(1);
  const CommitOrder order{"latest", 1, "key:ci"};
  ASSERT_TRUE(Commit("acme", "fr", AdapterFiles("b"), order).ok());
  const absl::StatusOr<CommittedVersion> again = Commit("acme", "fr", AdapterFiles("b"), order);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->info.id.version, 2);
  EXPECT_EQ(again->name.change.sequence, 0);
}

TEST_F(StoreAliasesTest, AliasesSurviveARestart) {
  PutVersions(3);
  ASSERT_TRUE(Move("stable", 2).ok());
  ASSERT_TRUE(Move("latest", 1).ok());
  const int64_t generation = Generation();
  Reopen();
  EXPECT_THAT(Aliases(), ElementsAre(Pair("latest", 1), Pair("stable", 2)));
  EXPECT_EQ(Generation(), generation);
}

TEST_F(StoreAliasesTest, MoveAnswersWhatChangedAndTheWholeName) {
  PutVersions(2);
  now_ += absl::Minutes(5);
  const absl::StatusOr<NameChange> moved = Move("canary", 2);
  ASSERT_TRUE(moved.ok()) << moved.status();
  EXPECT_EQ(moved->change.from, 0);
  EXPECT_EQ(moved->change.to, 2);
  EXPECT_EQ(moved->change.actor, "key:ops");
  EXPECT_EQ(moved->change.time, now_);
  EXPECT_GT(moved->change.sequence, 0);
  EXPECT_EQ(moved->after.pointers.aliases.at("canary"), 2);
  EXPECT_EQ(moved->after.versions.size(), 2u);
}

TEST_F(StoreAliasesTest, MoveThatLostItsRaceIsAbortedWithTheCurrentVersion) {
  PutVersions(3);
  ASSERT_TRUE(Move("latest", 1, 3).ok());
  const absl::Status lost = Move("latest", 2, 3).status();
  EXPECT_TRUE(absl::IsAborted(lost)) << lost;
  EXPECT_EQ(GetErrorDetail(lost)->reason, "ALIAS_MOVED");
  EXPECT_EQ(GetErrorDetail(lost)->subject, "fr@latest");
  EXPECT_EQ(GetErrorMetadata(lost).at("current_version"), "1");
  EXPECT_THAT(Aliases(), ElementsAre(Pair("latest", 1)));
  EXPECT_EQ(GetErrorMetadata(Move("new", 2, 1).status()).at("current_version"), "0");
  EXPECT_TRUE(Move("new", 2, 0).ok());
}

TEST_F(StoreAliasesTest, MoveToWhereItIsChangesNothing) {
  PutVersions(2);
  const int64_t generation = Generation();
  const absl::StatusOr<NameChange> moved = Move("latest", 2, 1);
  ASSERT_TRUE(moved.ok()) << "a retry after a lost answer: " << moved.status();
  EXPECT_EQ(moved->change.sequence, 0);
  EXPECT_EQ(Generation(), generation);
  EXPECT_EQ(History().size(), 2u);
}

TEST_F(StoreAliasesTest, MoveToNowhereRemoves) {
  PutVersions(1);
  ASSERT_TRUE(Move("canary", 1).ok());
  ASSERT_TRUE(Move("canary", 0).ok());
  EXPECT_THAT(Aliases(), ElementsAre(Pair("latest", 1)));
  EXPECT_TRUE(absl::IsNotFound(Move("canary", 0).status()));
}

TEST_F(StoreAliasesTest, WhatIsNotThereIsNotFound) {
  PutVersions(1);
  EXPECT_TRUE(absl::IsNotFound(Move("canary", 2).status()));
  EXPECT_TRUE(absl::IsNotFound(
      store_->MoveAlias({"acme", "de", "latest", 1, {}, AliasAction::kPromote, ""}).status()));
  EXPECT_TRUE(absl::IsNotFound(
      store_->MoveAlias({"evil", "fr", "latest", 1, {}, AliasAction::kPromote, ""}).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(Move("7", 1).status()));
}

TEST_F(StoreAliasesTest, AliasesOfANameAreBounded) {
  PutVersions(1);
  for (int64_t i = 1; i < kMaxAliases; ++i) {
    ASSERT_TRUE(Move(absl::StrCat("a", i), 1).ok());
  }
  const absl::Status over = Move("one-more", 1).status();
  EXPECT_TRUE(absl::IsResourceExhausted(over)) << over;
  EXPECT_EQ(Aliases().size(), static_cast<size_t>(kMaxAliases));
  EXPECT_TRUE(Move("a1", 1).ok());
}

TEST_F(StoreAliasesTest, VersionWithAnAliasIsNotDeleted) {
  PutVersions(2);
  ASSERT_TRUE(Move("canary", 2).ok());
  const absl::Status used = store_->Delete({"acme", "fr", 2}, {}, "key:ops").status();
  EXPECT_TRUE(absl::IsFailedPrecondition(used)) << used;
  EXPECT_EQ(GetErrorDetail(used)->reason, "VERSION_IN_USE");
  EXPECT_THAT(std::string(used.message()), HasSubstr("canary, latest"));
  EXPECT_TRUE(Read({"acme", "fr", 2}).ok());
}

TEST_F(StoreAliasesTest, DeletionWithItsMovesIsOneStep) {
  PutVersions(2);
  const AliasMove back{"acme", "fr", "latest", 1, 2, AliasAction::kDelete, "key:ops"};
  const absl::StatusOr<NameChange> deleted = store_->Delete({"acme", "fr", 2}, {back}, "key:ops");
  ASSERT_TRUE(deleted.ok()) << deleted.status();
  EXPECT_EQ(deleted->after.versions.size(), 1u);
  EXPECT_THAT(Aliases(), ElementsAre(Pair("latest", 1)));
  EXPECT_THAT(History(), ElementsAre("upload latest 0>1 ", "upload latest 1>2 ",
                                     "delete latest 2>1 key:ops", "delete - 2>0 key:ops"));
}

TEST_F(StoreAliasesTest, DeletionWhoseMovesLostTheirRaceDoesNothing) {
  PutVersions(2);
  const AliasMove back{"acme", "fr", "latest", 1, /*expected=*/1, AliasAction::kDelete, "k"};
  ASSERT_TRUE(Put("acme", "fr", AdapterFiles("weights-3")).ok());
  EXPECT_TRUE(absl::IsAborted(store_->Delete({"acme", "fr", 2}, {back}, "k").status()));
  EXPECT_THAT(Aliases(), ElementsAre(Pair("latest", 3)));
  EXPECT_TRUE(Read({"acme", "fr", 2}).ok());
}

TEST_F(StoreAliasesTest, DeletedNameIsGoneWholeAndItsHistoryStays) {
  PutVersions(2);
  ASSERT_TRUE(Move("canary", 1).ok());
  ASSERT_TRUE(store_->SetSplit("acme", "fr", {{"canary", 500}}, "key:ops").ok());
  const absl::StatusOr<NameChange> deleted = store_->DeleteName("acme", "fr", "key:ops");
  ASSERT_TRUE(deleted.ok()) << deleted.status();
  EXPECT_THAT(deleted->after.versions, IsEmpty());
  EXPECT_THAT(deleted->after.pointers.aliases, IsEmpty());
  EXPECT_THAT(deleted->after.pointers.split, IsEmpty());
  EXPECT_TRUE(absl::IsNotFound(store_->Name("acme", "fr").status()));
  EXPECT_EQ(CountEntries(blobs()), 0);
  EXPECT_EQ(History().back(), "delete - 2>0 key:ops");
  EXPECT_EQ(Put("acme", "fr", AdapterFiles("weights-1"))->id.version, 3);
}

TEST_F(StoreAliasesTest, SplitIsKeptAndRecorded) {
  PutVersions(2);
  ASSERT_TRUE(Move("canary", 2).ok());
  const std::vector<SplitArm> split = {{"canary", 525}};
  ASSERT_TRUE(store_->SetSplit("acme", "fr", split, "key:ops").ok());
  EXPECT_EQ(store_->SetSplit("acme", "fr", split, "key:ops")->change.sequence, 0);
  Reopen();
  EXPECT_EQ(store_->Name("acme", "fr")->pointers.split, split);
  ASSERT_TRUE(store_->SetSplit("acme", "fr", {}, "key:ops").ok());
  EXPECT_THAT(store_->Name("acme", "fr")->pointers.split, IsEmpty());
  EXPECT_EQ(History()[3], "split - 0>0 key:opscanary=5.25%");
  EXPECT_EQ(History()[4], "split - 0>0 key:opsnone");
  EXPECT_TRUE(absl::IsNotFound(store_->SetSplit("acme", "de", split, "k").status()));
}

TEST_F(StoreAliasesTest, GenerationGrowsWithTheTenantsChangesOnly) {
  PutVersions(1);
  EXPECT_EQ(Generation(), 1);
  ASSERT_TRUE(Put("acme", "de", AdapterFiles("d")).ok());
  ASSERT_TRUE(Put("other", "fr", AdapterFiles("o")).ok());
  EXPECT_EQ(store_->Name("acme", "de")->generation, 2);
  EXPECT_EQ(store_->Name("other", "fr")->generation, 1);
  ASSERT_TRUE(store_->DeleteName("acme", "de", "k").ok());
  ASSERT_TRUE(Move("canary", 1).ok());
  EXPECT_EQ(Generation(), 5) << "an alias and a version went, an alias came";
  Reopen();
  int64_t newest = 0;
  const absl::StatusOr<std::vector<AdapterName>> names = store_->Names();
  ASSERT_TRUE(names.ok()) << names.status();
  for (const AdapterName& name : *names) {
    newest = name.tenant == "acme" ? std::max(newest, name.generation) : newest;
  }
  EXPECT_EQ(newest, 5);
}

TEST_F(StoreAliasesTest, HistoryIsInOrderWhateverTheClockSays) {
  PutVersions(1);
  now_ -= absl::Hours(24 * 365);
  ASSERT_TRUE(Move("canary", 1).ok());
  now_ += absl::Hours(24 * 730);
  ASSERT_TRUE(Move("canary", 0).ok());
  EXPECT_THAT(History(), ElementsAre("upload latest 0>1 ", "promote canary 0>1 key:ops",
                                     "promote canary 1>0 key:ops"));
}

TEST_F(StoreAliasesTest, HistoryForgetsTheOldest) {
  PutVersions(2);
  for (int64_t i = 0; i < kMaxHistory; ++i) {
    ASSERT_TRUE(Move("latest", 1 + i % 2).ok());
  }
  EXPECT_EQ(History().size(), static_cast<size_t>(kMaxHistory));
  EXPECT_EQ(History().front(), "promote latest 2>1 key:ops");
}

TEST_F(StoreAliasesTest, HistoriesOfTenantsAreApart) {
  PutVersions(1);
  ASSERT_TRUE(Put("other", "fr", AdapterFiles("o")).ok());
  EXPECT_EQ(History().size(), 1u);
  EXPECT_THAT(*store_->History("nobody", "fr"), IsEmpty());
}

}  // namespace
}  // namespace tenon
