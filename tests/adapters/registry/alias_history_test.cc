#include "adapters/registry/alias_history.h"

#include <gtest/gtest.h>

#include <optional>
#include <set>
#include <vector>

namespace tenon {
namespace {

// A history that begins with the alias nowhere.
class Moves {
 public:
  Moves& To(int64_t version, AliasAction action = AliasAction::kPromote) {
    history_.push_back({static_cast<int64_t>(history_.size()) + 1, absl::UnixEpoch(), "key:a",
                        action, "latest", at_, version, ""});
    at_ = version;
    return *this;
  }
  Moves& Back(int64_t version) { return To(version, AliasAction::kRollback); }
  Moves& Other(int64_t from, int64_t to) {
    history_.push_back({0, absl::UnixEpoch(), "", AliasAction::kPromote, "canary", from, to, ""});
    return *this;
  }
  std::optional<int64_t> Target(const std::set<int64_t>& gone = {}) const {
    return RollbackTarget(history_, "latest",
                          [&](int64_t version) { return !gone.contains(version); });
  }
  void Forget(size_t count) { history_.erase(history_.begin(), history_.begin() + count); }

 private:
  std::vector<AliasChange> history_;
  int64_t at_ = 0;
};

TEST(RollbackTargetTest, NothingBeforeTheFirstVersion) {
  EXPECT_EQ(Moves().Target(), std::nullopt);
  EXPECT_EQ(Moves().To(1).Target(), std::nullopt);
}

TEST(RollbackTargetTest, GoesToTheVersionBefore) { EXPECT_EQ(Moves().To(1).To(3).Target(), 1); }

TEST(RollbackTargetTest, SecondRollbackGoesFurtherBackNotForth) {
  EXPECT_EQ(Moves().To(1).To(2).To(3).Back(2).Target(), 1);
  EXPECT_EQ(Moves().To(1).To(2).To(3).Back(2).Back(1).Target(), std::nullopt);
}

TEST(RollbackTargetTest, PromotionAfterARollbackRemembersWhereItLeft) {
  EXPECT_EQ(Moves().To(1).To(2).To(3).Back(2).To(4).Target(), 2);
  EXPECT_EQ(Moves().To(1).To(2).To(3).Back(2).To(4).Back(2).Target(), 1);
}

TEST(RollbackTargetTest, PassesOverVersionsThatAreGone) {
  EXPECT_EQ(Moves().To(1).To(2).To(3).Target({2}), 1);
  EXPECT_EQ(Moves().To(1).To(2).To(3).Target({1, 2}), std::nullopt);
  EXPECT_EQ(Moves().To(1).To(2).To(3).Back(1).Target({2}), std::nullopt);
}

TEST(RollbackTargetTest, NeverTheVersionThatIsThere) {
  EXPECT_EQ(Moves().To(1).To(2).To(1).To(2).Target({1}), std::nullopt);
}

TEST(RollbackTargetTest, OtherAliasesDoNotCount) {
  EXPECT_EQ(Moves().Other(8, 9).To(1).Other(9, 10).Target(), std::nullopt);
}

TEST(RollbackTargetTest, ForcedDeletionUnwindsLikeARollback) {
  EXPECT_EQ(Moves().To(1).To(2).To(3).To(2, AliasAction::kDelete).Target({3}), 1);
}

TEST(RollbackTargetTest, RemovedAndSetAgain) { EXPECT_EQ(Moves().To(1).To(0).To(2).Target(), 1); }

TEST(RollbackTargetTest, HistoryWithoutItsBeginningGoesNoFurtherThanItKnows) {
  Moves moves;
  moves.To(1).To(2).To(3).Back(2);
  moves.Forget(3);
  EXPECT_EQ(moves.Target(), std::nullopt);
  moves.To(5);
  EXPECT_EQ(moves.Target(), 2);
}

TEST(AliasActionTest, NamesRoundTrip) {
  for (const AliasAction action :
       {AliasAction::kUpload, AliasAction::kPromote, AliasAction::kRollback, AliasAction::kDelete,
        AliasAction::kSplit}) {
    EXPECT_EQ(*ParseAliasAction(AliasActionName(action)), action);
  }
  EXPECT_TRUE(absl::IsDataLoss(ParseAliasAction("Upload").status()));
}

}  // namespace
}  // namespace tenon
