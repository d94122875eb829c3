// Store and registry together: what is answered is durable and visible, in this order.
#include "adapters/store/adapter_versions.h"

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "adapters/base/error_metadata.h"
#include "adapters/base/errors.h"
#include "gmock/gmock.h"
#include "tests/adapters/store/store_test_fixture.h"

namespace tenon {
namespace {

using testing::ElementsAre;

class AdapterVersionsTest : public StoreTest {
 protected:
  AdapterVersionsTest() { Restart(); }

  // A new server process on the same store.
  void Restart(int64_t max_versions = 100) {
    versions_.reset();
    Reopen();
    registry_ = std::make_unique<AdapterRegistry>();
    versions_ = std::make_unique<AdapterVersions>(store_.get(), registry_.get(), max_versions);
    const absl::Status restored = versions_->Restore();
    ASSERT_TRUE(restored.ok()) << restored;
  }

  absl::StatusOr<CommittedVersion> Publish(const std::string& name, const std::string& weights,
                                           const CommitOrder& order = {},
                                           const std::string& tenant = "acme") {
    TENON_ASSIGN_OR_RETURN(std::unique_ptr<StagedUpload> upload, Stage(AdapterFiles(weights)));
    AdapterInfo facts;
    facts.id = AdapterId{tenant, name, 0};
    return versions_->Commit(std::move(upload), std::move(facts), order);
  }
  absl::StatusOr<NameChange> Promote(const std::string& alias, int64_t version,
                                     std::optional<int64_t> expected = std::nullopt) {
    return versions_->Promote(
        {"acme", "fr", alias, version, expected, AliasAction::kPromote, "key:ops"});
  }
  absl::StatusOr<NameChange> Rollback(const std::string& alias = "latest",
                                      std::optional<int64_t> expected = std::nullopt) {
    return versions_->Rollback("acme", "fr", alias, expected, "key:ops");
  }
  // The version that a request for `ref` gets, or 0.
  int64_t Served(const AdapterRef& ref) {
    const absl::StatusOr<AdapterHandle> handle = registry_->Acquire("acme", ref);
    return handle.ok() ? handle->id().version : 0;
  }

  std::unique_ptr<AdapterRegistry> registry_;
  std::unique_ptr<AdapterVersions> versions_;
};

TEST_F(AdapterVersionsTest, NewRequestsGetTheVersionAsSoonAsPromoteReturns) {
  ASSERT_TRUE(Publish("fr", "a").ok());
  ASSERT_TRUE(Publish("fr", "b").ok());
  EXPECT_EQ(Served({"fr"}), 2);
  ASSERT_TRUE(Promote("latest", 1).ok());
  EXPECT_EQ(Served({"fr"}), 1);
  ASSERT_TRUE(Promote("canary", 2).ok());
  EXPECT_EQ(Served({"fr", 0, "canary"}), 2);
  Restart();
  EXPECT_EQ(Served({"fr"}), 1);
  EXPECT_EQ(Served({"fr", 0, "canary"}), 2);
}

TEST_F(AdapterVersionsTest, UnpromotedUploadIsThereByNumberOnly) {
  ASSERT_TRUE(Publish("fr", "a", {"", std::nullopt, ""}).ok());
  EXPECT_EQ(Served({"fr"}), 0);
  EXPECT_EQ(Served({"fr", 1}), 1);
  ASSERT_TRUE(Promote("latest", 1, 0).ok());
  EXPECT_EQ(Served({"fr"}), 1);
}

TEST_F(AdapterVersionsTest, RollbackGoesBackStepByStep) {
  for (const char* weights : {"a", "b", "c"}) {
    ASSERT_TRUE(Publish("fr", weights).ok());
  }
  EXPECT_EQ(Rollback()->change.to, 2);
  EXPECT_EQ(Served({"fr"}), 2);
  Restart();
  EXPECT_EQ(Rollback()->change.to, 1);
  const absl::Status nowhere = Rollback().status();
  EXPECT_TRUE(absl::IsFailedPrecondition(nowhere)) << nowhere;
  EXPECT_EQ(GetErrorDetail(nowhere)->reason, "NO_EARLIER_VERSION");
  EXPECT_EQ(Served({"fr"}), 1);
}

TEST_F(AdapterVersionsTest, RollbackWithoutHistoryIsRefused) {
  ASSERT_TRUE(Publish("fr", "a").ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(Rollback().status()));
  EXPECT_TRUE(absl::IsNotFound(Rollback("canary").status()));
  EXPECT_TRUE(absl::IsNotFound(
      versions_->Rollback("acme", "de", "latest", std::nullopt, "key:ops").status()));
}

TEST_F(AdapterVersionsTest, RollbackThatLostItsRaceIsAborted) {
  ASSERT_TRUE(Publish("fr", "a").ok());
  ASSERT_TRUE(Publish("fr", "b").ok());
  ASSERT_TRUE(Publish("fr", "c").ok());
  const absl::Status lost = Rollback("latest", 2).status();
  EXPECT_TRUE(absl::IsAborted(lost)) << lost;
  EXPECT_EQ(GetErrorMetadata(lost).at("current_version"), "3");
  EXPECT_TRUE(Rollback("latest", 3).ok());
}

TEST_F(AdapterVersionsTest, DeletionOfWhatAnAliasMeansNeedsForce) {
  ASSERT_TRUE(Publish("fr", "a").ok());
  ASSERT_TRUE(Publish("fr", "b").ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(
      versions_->Delete("acme", {"fr", 2}, /*force=*/false, "k").status()));
  EXPECT_EQ(Served({"fr"}), 2);
  EXPECT_THAT(*versions_->Delete("acme", {"fr", 2}, /*force=*/true, "k"), ElementsAre(2));
  EXPECT_EQ(Served({"fr"}), 1) << "where it was before";
  EXPECT_THAT(*versions_->Delete("acme", {"fr", 1}, /*force=*/true, "k"), ElementsAre(1));
  EXPECT_EQ(Served({"fr"}), 0);
}

TEST_F(AdapterVersionsTest, ForcedDeletionNeverMovesAnAliasForward) {
  ASSERT_TRUE(Publish("fr", "a").ok());
  ASSERT_TRUE(Publish("fr", "b").ok());
  ASSERT_TRUE(Promote("stable", 1).ok());
  ASSERT_TRUE(versions_->Delete("acme", {"fr", 1}, /*force=*/true, "k").ok());
  EXPECT_EQ(Served({"fr", 0, "stable"}), 0) << "it has been nowhere else";
  EXPECT_EQ(Served({"fr"}), 2);
}

TEST_F(AdapterVersionsTest, DeletionOfANameTakesAllOfIt) {
  ASSERT_TRUE(Publish("fr", "a").ok());
  ASSERT_TRUE(Publish("fr", "b").ok());
  ASSERT_TRUE(Publish("de", "a").ok());
  EXPECT_THAT(*versions_->Delete("acme", {"fr"}, /*force=*/false, "k"), ElementsAre(1, 2));
  EXPECT_EQ(Served({"fr", 1}), 0);
  EXPECT_EQ(Served({"de"}), 1);
  EXPECT_TRUE(absl::IsNotFound(versions_->Delete("acme", {"fr"}, false, "k").status()));
}

TEST_F(AdapterVersionsTest, OtherTenantsAdapterReadsLikeNone) {
  ASSERT_TRUE(Publish("fr", "a").ok());
  const absl::Status theirs = versions_->Delete("evil", {"fr", 1}, true, "k").status();
  EXPECT_TRUE(absl::IsNotFound(theirs));
  EXPECT_EQ(theirs, versions_->Delete("nobody", {"fr", 1}, true, "k").status());
  EXPECT_EQ(Served({"fr"}), 1);
}

TEST_F(AdapterVersionsTest, RetiredVersionsAreTold) {
  std::vector<std::string> retired;
  versions_->set_on_retired(
      [&](const AdapterInfo& info) { retired.push_back(info.id.ToString()); });
  ASSERT_TRUE(Publish("fr", "a").ok());
  ASSERT_TRUE(Publish("fr", "b").ok());
  ASSERT_TRUE(versions_->Delete("acme", {"fr"}, false, "k").ok());
  EXPECT_THAT(retired, ElementsAre("acme/fr@1", "acme/fr@2"));
}

TEST_F(AdapterVersionsTest, VersionDeletedWhileARequestHoldsItStillOpens) {
  ASSERT_TRUE(Publish("fr", "weights").ok());
  absl::StatusOr<AdapterHandle> held = registry_->Acquire("acme", {"fr"});
  ASSERT_TRUE(held.ok());
  ASSERT_TRUE(versions_->Delete("acme", {"fr"}, false, "k").ok());
  const absl::StatusOr<FileSet> files = versions_->Open(held->id());
  ASSERT_TRUE(files.ok()) << files.status();
  EXPECT_EQ(AsText(files->at("adapter_model.safetensors")), "weights");
  held = AdapterHandle();
  ASSERT_TRUE(Publish("de", "next").ok());  // any change lets go of what has drained
  EXPECT_TRUE(absl::IsNotFound(versions_->Open({"acme", "fr", 1}).status()));
}

TEST_F(AdapterVersionsTest, RefusedDeletionKeepsNoFiles) {
  ASSERT_TRUE(Publish("fr", "a").ok());
  ASSERT_FALSE(versions_->Delete("acme", {"fr", 1}, false, "k").ok());
  ASSERT_TRUE(store_->DeleteName("acme", "fr", "behind its back").ok());
  EXPECT_TRUE(absl::IsNotFound(versions_->Open({"acme", "fr", 1}).status()));
}

TEST_F(AdapterVersionsTest, CorruptedBlobQuarantinesItsVersionAlone) {
  ASSERT_TRUE(Publish("bad", "weights").ok());
  ASSERT_TRUE(Publish("fr", "others").ok());
  Overwrite(BlobOf("weights"), "weighty");
  EXPECT_TRUE(absl::IsDataLoss(versions_->Open({"acme", "bad", 1}).status()));
  EXPECT_TRUE(absl::IsDataLoss(registry_->Acquire("acme", {"bad"}).status())) << "before any load";
  EXPECT_EQ(Served({"fr"}), 1);
  EXPECT_EQ(registry_->num_quarantined(), 1);
  ASSERT_TRUE(Publish("bad", "weights").ok());
  EXPECT_EQ(Served({"bad"}), 1) << "the same upload repairs it";
  EXPECT_EQ(registry_->num_quarantined(), 0);
}

TEST_F(AdapterVersionsTest, DamageThatIsFoundAtStartIsQuarantined) {
  ASSERT_TRUE(Publish("fr", "weights").ok());
  std::filesystem::remove(BlobOf("weights"));
  Restart();
  EXPECT_TRUE(absl::IsDataLoss(registry_->Acquire("acme", {"fr"}).status()));
  EXPECT_TRUE(versions_->Delete("acme", {"fr"}, false, "k").ok());
}

TEST_F(AdapterVersionsTest, TenantsLimitCountsVersions) {
  Restart(/*max_versions=*/2);
  ASSERT_TRUE(Publish("fr", "a").ok());
  ASSERT_TRUE(Publish("de", "b").ok());
  const absl::Status over = Publish("it", "c").status();
  EXPECT_TRUE(absl::IsResourceExhausted(over)) << over;
  EXPECT_EQ(GetErrorDetail(over)->reason, "ADAPTERS_PER_TENANT");
  EXPECT_TRUE(Publish("fr", "a").ok()) << "an upload that is there takes no room";
  EXPECT_TRUE(Publish("it", "c", {}, "bmce").ok()) << "tenants count apart";
}

TEST_F(AdapterVersionsTest, SplitNeedsItsAliases) {
  ASSERT_TRUE(Publish("fr", "a").ok());
  const absl::Status missing =
      versions_->SetSplit("acme", "fr", {{"canary", 500}}, "key:ops").status();
  EXPECT_TRUE(absl::IsNotFound(missing)) << missing;
  EXPECT_EQ(GetErrorDetail(missing)->subject, "fr@canary");
  ASSERT_TRUE(Promote("canary", 1).ok());
  EXPECT_TRUE(versions_->SetSplit("acme", "fr", {{"canary", 500}}, "key:ops").ok());
  EXPECT_TRUE(absl::IsInvalidArgument(
      versions_->SetSplit("acme", "fr", {{"canary", 0}}, "key:ops").status()));
  EXPECT_TRUE(absl::IsNotFound(versions_->SetSplit("acme", "de", {}, "key:ops").status()));
}

TEST_F(AdapterVersionsTest, TwoPromotionsOfOneExpectationHaveOneWinner) {
  constexpr int kThreads = 8;
  ASSERT_TRUE(Publish("fr", "base").ok());
  for (int i = 0; i < kThreads; ++i) {
    ASSERT_TRUE(Publish("fr", absl::StrCat("v", i), {"", std::nullopt, ""}).ok());
  }
  std::atomic<int> won = 0, lost = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      const absl::Status status = Promote("latest", 2 + i, /*expected=*/1).status();
      won += status.ok();
      lost += absl::IsAborted(status);
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_EQ(won, 1);
  EXPECT_EQ(lost, kThreads - 1);
}

// The registry is written after the store; two writers must not leave it with the older state.
TEST_F(AdapterVersionsTest, StoreAndRegistryAgreeAfterARaceOfAllChanges) {
  ASSERT_TRUE(Publish("fr", "base").ok());
  std::vector<std::thread> threads;
  threads.emplace_back([&] {
    for (int i = 0; i < 20; ++i) {
      ASSERT_TRUE(Publish("fr", absl::StrCat("w", i)).ok());
    }
  });
  threads.emplace_back([&] {
    for (int i = 0; i < 20; ++i) {
      Promote("latest", 1).IgnoreError();
      Rollback().IgnoreError();
    }
  });
  threads.emplace_back([&] {
    for (int i = 2; i < 20; ++i) {
      versions_->Delete("acme", {"fr", i}, /*force=*/true, "k").IgnoreError();
    }
  });
  for (std::thread& thread : threads) {
    thread.join();
  }
  const absl::StatusOr<AdapterName> stored = store_->Name("acme", "fr");
  ASSERT_TRUE(stored.ok()) << stored.status();
  const std::shared_ptr<const AdapterName> served = registry_->Find("acme", "fr");
  ASSERT_NE(served, nullptr);
  EXPECT_EQ(served->generation, stored->generation);
  EXPECT_EQ(served->pointers, stored->pointers);
  EXPECT_EQ(served->versions.size(), stored->versions.size());
  for (const auto& [alias, version] : served->pointers.aliases) {
    EXPECT_TRUE(served->versions.contains(version)) << alias;
  }
}

}  // namespace
}  // namespace tenon
