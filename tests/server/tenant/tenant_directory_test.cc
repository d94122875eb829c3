#include "server/tenant/tenant_directory.h"

#include <sys/stat.h>

#include <atomic>
#include <fstream>
#include <set>
#include <sstream>
#include <thread>
#include <vector>

#include "adapters/base/sqlite.h"
#include "adapters/registry/adapter_id.h"
#include "tests/server/tenant/directory_fixture.h"

namespace tenon {
namespace {

using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::Field;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

std::string Slurp(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

TEST(ApiKeyTest, HasAFormThatScannersCanFind) {
  const ApiKey key = ApiKey::Draw(DrawRandomBytes);
  EXPECT_THAT(key.text, testing::MatchesRegex("tnk_[0-9a-f]{16}_[0-9a-f]{64}"));
  EXPECT_EQ(ApiKeyId(key.text), key.id);
}

TEST(ApiKeyTest, OtherTextsHaveNoId) {
  const std::string text = ApiKey::Draw(DrawRandomBytes).text;
  for (const std::string& other :
       {std::string(), text.substr(1), text + "0", text.substr(0, 20), "TNK" + text.substr(3),
        text.substr(0, text.size() - 1) + "G", std::string(85, '_'), std::string(85, '\0')}) {
    EXPECT_EQ(ApiKeyId(other), std::nullopt) << other;
  }
}

TEST(ApiKeyTest, DigestIsTheRfc4231One) {
  const ApiKeyHasher hasher("Jefe");
  EXPECT_EQ(hasher.Digest("what do ya want for nothing?"),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
}

TEST_F(DirectoryTest, PepperIsDrawnOnceAndPrivate) {
  const std::string pepper = Slurp(folder_ + "/pepper");
  EXPECT_EQ(pepper.size(), 32u);
  struct stat info;
  ASSERT_EQ(stat((folder_ + "/pepper").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  Reopen();
  EXPECT_EQ(Slurp(folder_ + "/pepper"), pepper);
}

TEST_F(DirectoryTest, ShortPepperIsRefused) {
  std::ofstream(folder_ + "/short") << "abc";
  EXPECT_EQ(ApiKeyHasher::Open(folder_ + "/short", DrawRandomBytes).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST_F(DirectoryTest, BeginsWithTheDefaultTenantAndNoKeys) {
  EXPECT_THAT(directory_->List(), ElementsAre(Field(&TenantRecord::name, kDefaultTenant)));
  EXPECT_FALSE(directory_->has_keys());
}

TEST_F(DirectoryTest, KeyProvesItsTenantAndRole) {
  const IssuedKey key = MakeKey("acme", Role::kAdapterWriter);
  const absl::StatusOr<Identity> identity = directory_->AuthenticateKey(key.text);
  ASSERT_TRUE(identity.ok()) << identity.status();
  EXPECT_EQ(identity->tenant, "acme");
  EXPECT_EQ(identity->roles, RoleSet({Role::kAdapterWriter}));
  EXPECT_EQ(identity->credential, "key:" + key.record.id);
}

TEST_F(DirectoryTest, UnknownIdAndWrongSecretAnswerAlike) {
  const IssuedKey key = MakeKey("acme");
  std::string wrong = key.text;
  wrong.back() = wrong.back() == '0' ? '1' : '0';
  const absl::Status unknown = Try(ApiKey::Draw(DrawRandomBytes).text);
  EXPECT_EQ(Try(wrong), unknown);
  EXPECT_EQ(Try("nonsense"), unknown);
  EXPECT_EQ(unknown.code(), absl::StatusCode::kUnauthenticated);
  EXPECT_EQ(ReasonOf(unknown), "CREDENTIALS_INVALID");
}

TEST_F(DirectoryTest, KeyIsRefusedFromItsExpiryOn) {
  MakeOperator();
  const auto key = directory_->CreateKey(kDefaultTenant, Role::kInference, now_ + absl::Seconds(10),
                                         "", source_);
  ASSERT_TRUE(key.ok());
  now_ += absl::Seconds(10) - absl::Nanoseconds(1);
  EXPECT_TRUE(Try(key->text).ok());
  now_ += absl::Nanoseconds(1);
  EXPECT_EQ(ReasonOf(Try(key->text)), "CREDENTIALS_EXPIRED");
}

TEST_F(DirectoryTest, RevocationHoldsAtOnceAndAfterARestart) {
  const IssuedKey key = MakeKey("acme");
  ASSERT_TRUE(directory_->RevokeKey(key.record.id, source_).ok());
  EXPECT_EQ(ReasonOf(Try(key.text)), "CREDENTIALS_REVOKED");
  Reopen();
  EXPECT_EQ(ReasonOf(Try(key.text)), "CREDENTIALS_REVOKED");
}

TEST_F(DirectoryTest, RevokingTwiceKeepsTheFirstTime) {
  const IssuedKey key = MakeKey("acme");
  const absl::Time first = now_;
  ASSERT_TRUE(directory_->RevokeKey(key.record.id, source_).ok());
  now_ += absl::Hours(1);
  EXPECT_EQ(directory_->RevokeKey(key.record.id, source_)->revoked, first);
}

TEST_F(DirectoryTest, RotationLeavesTheOldKeyForTheOverlap) {
  const IssuedKey old = MakeKey("acme", Role::kTenantAdmin);
  const auto fresh = directory_->RotateKey(old.record.id, absl::Minutes(5), source_);
  ASSERT_TRUE(fresh.ok()) << fresh.status();
  EXPECT_EQ(fresh->record.role, Role::kTenantAdmin);
  EXPECT_EQ(fresh->record.tenant, "acme");
  now_ += absl::Minutes(4);
  EXPECT_TRUE(Try(old.text).ok());
  EXPECT_TRUE(Try(fresh->text).ok());
  now_ += absl::Minutes(1);
  EXPECT_EQ(ReasonOf(Try(old.text)), "CREDENTIALS_EXPIRED");
  EXPECT_TRUE(Try(fresh->text).ok());
}

TEST_F(DirectoryTest, RotationDoesNotProlongTheOldKey) {
  MakeOperator();
  const auto old = directory_->CreateKey(kDefaultTenant, Role::kInference, now_ + absl::Seconds(10),
                                         "", source_);
  ASSERT_TRUE(directory_->RotateKey(old->record.id, absl::Hours(1), source_).ok());
  EXPECT_EQ(directory_->FindKey(old->record.id)->expires, now_ + absl::Seconds(10));
}

TEST_F(DirectoryTest, RevokedKeyIsNotRotated) {
  const IssuedKey key = MakeKey("acme");
  ASSERT_TRUE(directory_->RevokeKey(key.record.id, source_).ok());
  EXPECT_EQ(ReasonOf(directory_->RotateKey(key.record.id, absl::Hours(1), source_).status()),
            "KEY_NOT_VALID");
}

TEST_F(DirectoryTest, FirstKeyMustBeAnOperators) {
  const auto key = directory_->CreateKey(kDefaultTenant, Role::kTenantAdmin, absl::InfiniteFuture(),
                                         "", source_);
  EXPECT_EQ(ReasonOf(key.status()), "OPERATOR_KEY_MISSING");
  EXPECT_FALSE(directory_->has_keys());
}

TEST_F(DirectoryTest, RevokedKeysStillCountAsKeys) {
  ASSERT_TRUE(directory_->RevokeKey(MakeOperator().record.id, source_).ok());
  EXPECT_TRUE(directory_->has_keys()) << "the server would be open again";
}

TEST_F(DirectoryTest, OperatorsHaveNoTenantAndOthersHaveOne) {
  MakeOperator();
  const auto infinite = absl::InfiniteFuture();
  EXPECT_FALSE(directory_->CreateKey("default", Role::kOperator, infinite, "", source_).ok());
  EXPECT_FALSE(directory_->CreateKey("", Role::kInference, infinite, "", source_).ok());
  EXPECT_EQ(
      ReasonOf(directory_->CreateKey("nobody", Role::kInference, infinite, "", source_).status()),
      "TENANT_NOT_FOUND");
}

TEST_F(DirectoryTest, SuspendedTenantIsRefusedUntilItIsActiveAgain) {
  const IssuedKey key = MakeKey("acme");
  ASSERT_TRUE(directory_->SetState("acme", TenantState::kSuspended, source_).ok());
  EXPECT_EQ(ReasonOf(Try(key.text)), "TENANT_SUSPENDED");
  EXPECT_EQ(Try(key.text).code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(ReasonOf(directory_->CheckActive("acme")), "TENANT_SUSPENDED");
  ASSERT_TRUE(directory_->SetState("acme", TenantState::kActive, source_).ok());
  EXPECT_TRUE(Try(key.text).ok());
}

TEST_F(DirectoryTest, DeletedTenantTakesItsKeysAndNobodyElses) {
  const IssuedKey acme = MakeKey("acme");
  const IssuedKey globex = MakeKey("globex");
  ASSERT_TRUE(directory_->Delete("acme", source_).ok());
  for (const bool reopened : {false, true}) {
    EXPECT_EQ(ReasonOf(Try(acme.text)), "CREDENTIALS_INVALID") << reopened;
    EXPECT_TRUE(Try(globex.text).ok());
    EXPECT_EQ(ReasonOf(directory_->CheckActive("acme")), "CREDENTIALS_INVALID");
    Reopen();
  }
}

TEST_F(DirectoryTest, LimitsHoldAtOnceAndAfterARestart) {
  MakeKey("acme");
  const TenantLimits limits{1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
  ASSERT_TRUE(directory_->SetLimits("acme", limits, source_).ok());
  EXPECT_EQ(directory_->LimitsOf("acme"), limits);
  Reopen();
  EXPECT_EQ(directory_->LimitsOf("acme"), limits);
}

TEST_F(DirectoryTest, AdapterIsItsTenantsAloneUntilItIsShared) {
  MakeKey("acme");
  EXPECT_TRUE(directory_->MayUse("acme", "acme", "fr"));
  EXPECT_FALSE(directory_->MayUse("globex", "acme", "fr"));
  ASSERT_TRUE(
      directory_->Share({"acme", "fr", false, {"initech", "globex", "globex"}}, source_).ok());
  for (const bool reopened : {false, true}) {
    EXPECT_TRUE(directory_->MayUse("globex", "acme", "fr")) << reopened;
    EXPECT_FALSE(directory_->MayUse("hooli", "acme", "fr"));
    EXPECT_FALSE(directory_->MayUse("globex", "acme", "it")) << "another adapter";
    EXPECT_FALSE(directory_->MayUse("acme", "globex", "fr")) << "the other way round";
    EXPECT_THAT(directory_->ShareOf("acme", "fr").readers, ElementsAre("globex", "initech"));
    EXPECT_THAT(directory_->SharedWith("globex"), SizeIs(1));
    EXPECT_THAT(directory_->SharedWith("acme"), SizeIs(0)) << "its own is not shared with it";
    Reopen();
  }
}

TEST_F(DirectoryTest, ShareIsReplacedAndTakenBackAtOnce) {
  MakeKey("acme");
  ASSERT_TRUE(directory_->Share({"acme", "fr", true, {}}, source_).ok());
  EXPECT_TRUE(directory_->MayUse("hooli", "acme", "fr")) << "everybody";
  ASSERT_TRUE(directory_->Share({"acme", "fr", false, {"globex"}}, source_).ok());
  EXPECT_FALSE(directory_->MayUse("hooli", "acme", "fr"));
  ASSERT_TRUE(directory_->Share({"acme", "fr", false, {}}, source_).ok());
  for (const bool reopened : {false, true}) {
    EXPECT_FALSE(directory_->MayUse("globex", "acme", "fr")) << reopened;
    Reopen();
  }
}

TEST_F(DirectoryTest, DeletedTenantEndsWhatItSharedAndWhatWasSharedWithIt) {
  MakeKey("acme");
  MakeKey("globex");
  ASSERT_TRUE(directory_->Share({"acme", "fr", false, {"globex"}}, source_).ok());
  ASSERT_TRUE(directory_->Share({"globex", "it", false, {"acme"}}, source_).ok());
  ASSERT_TRUE(directory_->Delete("globex", source_).ok());
  ASSERT_TRUE(directory_->Create("globex", {}, source_).ok());  // another one of that name
  for (const bool reopened : {false, true}) {
    EXPECT_FALSE(directory_->MayUse("globex", "acme", "fr")) << reopened;
    EXPECT_FALSE(directory_->MayUse("acme", "globex", "it"));
    Reopen();
  }
}

TEST_F(DirectoryTest, ReadersAreNamesAndNotTooMany) {
  EXPECT_FALSE(directory_->Share({"acme", "fr", false, {""}}, source_).ok()) << "\"\" is everybody";
  EXPECT_FALSE(directory_->Share({"acme", "fr", false, {"../globex"}}, source_).ok());
  std::vector<std::string> many;
  for (int i = 0; i <= 1000; ++i) {
    many.push_back(absl::StrCat("t", i));
  }
  EXPECT_FALSE(directory_->Share({"acme", "fr", false, many}, source_).ok());
  EXPECT_FALSE(directory_->MayUse("hooli", "acme", "fr"));
}

TEST_F(DirectoryTest, PlacementHoldsUntilItIsTakenBack) {
  const PlacementRecord pinned{"default", "fr", 2, true, MergeWish::kNever};
  const PlacementRecord merged{"default", "de", 1, false, MergeWish::kAlways};
  source_.action = "PinAdapter";
  ASSERT_TRUE(directory_->Place(pinned, source_).ok());
  ASSERT_TRUE(directory_->Place(merged, source_).ok());
  for (const bool reopened : {false, true}) {
    EXPECT_THAT(directory_->Placements(), ElementsAre(merged, pinned)) << reopened;
    EXPECT_EQ(directory_->PlacementOf("default", "fr", 2), pinned);
    EXPECT_TRUE(directory_->PlacementOf("default", "fr", 1).says_nothing());
    Reopen();
  }
  ASSERT_TRUE(directory_->Place({"default", "fr", 2, false, MergeWish::kAuto}, source_).ok());
  ASSERT_TRUE(directory_->DropPlacements({merged}).ok());
  for (const bool reopened : {false, true}) {
    EXPECT_THAT(directory_->Placements(), IsEmpty()) << reopened;
    Reopen();
  }
  EXPECT_THAT(*directory_->ListAudit("default", 1 << 20, 3),
              Each(AllOf(Field(&AuditEntry::action, "PinAdapter"),
                         Field(&AuditEntry::object, AnyOf("fr@2", "de@1")))));
}

TEST_F(DirectoryTest, DeletedTenantTakesItsPlacements) {
  MakeKey("acme");
  const PlacementRecord other{"default", "fr", 1, true, MergeWish::kAuto};
  ASSERT_TRUE(directory_->Place({"acme", "fr", 1, true, MergeWish::kAuto}, source_).ok());
  ASSERT_TRUE(directory_->Place(other, source_).ok());
  ASSERT_TRUE(directory_->Delete("acme", source_).ok());
  for (const bool reopened : {false, true}) {
    EXPECT_THAT(directory_->Placements(), ElementsAre(other)) << reopened;
    Reopen();
  }
}

TEST_F(DirectoryTest, NamesAndLimitsAreChecked) {
  EXPECT_FALSE(directory_->Create("../etc", {}, source_).ok());
  EXPECT_FALSE(directory_->Create("", {}, source_).ok());
  EXPECT_EQ(directory_->Create(kDefaultTenant, {}, source_).status().code(),
            absl::StatusCode::kAlreadyExists);
  TenantLimits negative;
  negative.adapter_bytes = -1;
  EXPECT_THAT(std::string(directory_->SetLimits("default", negative, source_).status().message()),
              HasSubstr("limits.adapter_bytes"));
  TenantLimits heavy;
  heavy.weight = 1001;
  EXPECT_THAT(std::string(directory_->SetLimits("default", heavy, source_).status().message()),
              HasSubstr("1001 is not in [0, 1000]"));
  TenantLimits greedy;
  greedy.kv_percent = 101;
  EXPECT_THAT(std::string(directory_->SetLimits("default", greedy, source_).status().message()),
              HasSubstr("limits.kv_percent"));
}

TEST_F(DirectoryTest, SecretIsNowhereOnDisk) {
  const IssuedKey key = MakeKey("acme");
  directory_.reset();
  const std::string secret = key.text.substr(key.text.size() - kApiKeySecretDigits);
  for (const auto& file : std::filesystem::directory_iterator(folder_)) {
    EXPECT_THAT(Slurp(file.path()), Not(HasSubstr(secret))) << file.path();
  }
}

TEST_F(DirectoryTest, KeysOfAnotherPepperAreWorthless) {
  const IssuedKey key = MakeKey("acme");
  std::filesystem::remove(folder_ + "/pepper");
  Reopen();
  EXPECT_EQ(ReasonOf(Try(key.text)), "CREDENTIALS_INVALID");
}

TEST_F(DirectoryTest, LastUseIsSeenAtOnceAndKeptByAFlush) {
  const IssuedKey key = MakeKey("acme");
  EXPECT_EQ(directory_->FindKey(key.record.id)->last_used, absl::InfinitePast());
  now_ += absl::Minutes(1);
  ASSERT_TRUE(Try(key.text).ok());
  EXPECT_EQ(directory_->FindKey(key.record.id)->last_used, now_);
  ASSERT_TRUE(directory_->Flush({}).ok());
  Reopen();
  EXPECT_EQ(directory_->FindKey(key.record.id)->last_used, now_);
}

TEST_F(DirectoryTest, RefusedUseIsNoUse) {
  const IssuedKey key = MakeKey("acme");
  ASSERT_TRUE(directory_->RevokeKey(key.record.id, source_).ok());
  EXPECT_FALSE(Try(key.text).ok());
  EXPECT_EQ(directory_->FindKey(key.record.id)->last_used, absl::InfinitePast());
}

TEST_F(DirectoryTest, UsageAddsUpAcrossFlushesAndRestarts) {
  ASSERT_TRUE(directory_->Flush({{"acme", "fr", {1, 10, 4, 5}}, {"acme", "", {1, 1, 0, 1}}}).ok());
  Reopen();
  ASSERT_TRUE(directory_->Flush({{"acme", "fr", {2, 20, 6, 7}}}).ok());
  const auto usage = directory_->LoadUsage();
  ASSERT_TRUE(usage.ok());
  ASSERT_THAT(*usage, SizeIs(2));
  EXPECT_EQ((*usage)[1].totals, (UsageTotals{3, 30, 10, 12}));
}

TEST_F(DirectoryTest, EveryChangeIsAudited) {
  const IssuedKey key = MakeKey("acme");
  source_.action = "RevokeKey";
  ASSERT_TRUE(directory_->RevokeKey(key.record.id, source_).ok());
  ASSERT_TRUE(directory_->Audit(source_, "acme", "0000", "not_found").ok());
  const auto entries = directory_->ListAudit("acme", 1 << 20, 2);
  ASSERT_TRUE(entries.ok());
  EXPECT_THAT(
      *entries,
      ElementsAre(
          AllOf(Field(&AuditEntry::object, "0000"), Field(&AuditEntry::outcome, "not_found")),
          AllOf(Field(&AuditEntry::action, "RevokeKey"), Field(&AuditEntry::object, key.record.id),
                Field(&AuditEntry::actor, "key:root"), Field(&AuditEntry::peer, "unix:"),
                Field(&AuditEntry::time, now_), Field(&AuditEntry::outcome, "ok"))));
  const auto older = directory_->ListAudit("acme", entries->back().sequence, 10);
  EXPECT_THAT(*older, SizeIs(2)) << "CreateTenant and CreateKey";
}

TEST_F(DirectoryTest, FailedChangeChangesNothing) {
  const size_t before = directory_->ListAudit("", 1 << 20, 100)->size();
  EXPECT_EQ(ReasonOf(directory_->RevokeKey("0123456789abcdef", source_).status()), "KEY_NOT_FOUND");
  EXPECT_EQ(ReasonOf(directory_->Delete("nobody", source_)), "TENANT_NOT_FOUND");
  EXPECT_EQ(directory_->ListAudit("", 1 << 20, 100)->size(), before);
}

TEST_F(DirectoryTest, AuditLogCanOnlyGrow) {
  MakeOperator();
  directory_.reset();
  auto db = SqliteConnection::Open(folder_ + "/tenants.db", "test");
  ASSERT_TRUE(db.ok());
  EXPECT_FALSE(db->Execute("DELETE FROM audit").ok());
  EXPECT_FALSE(db->Execute("UPDATE audit SET actor = 'nobody'").ok());
}

TEST_F(DirectoryTest, NewerDatabaseIsRefused) {
  directory_.reset();
  {
    auto db = SqliteConnection::Open(folder_ + "/tenants.db", "test");
    ASSERT_TRUE(db->Execute("UPDATE schema_version SET version = 2").ok());
  }
  EXPECT_EQ(TenantStore::Open(folder_ + "/tenants.db").status().code(),
            absl::StatusCode::kFailedPrecondition);
}

// Readers and writers side by side: for ThreadSanitizer, and for the promise that a revoked key is
// never let in after RevokeKey has returned.
TEST_F(DirectoryTest, RevocationHoldsForEveryLaterCallOfEveryThread) {
  std::vector<IssuedKey> keys;
  for (int i = 0; i < 20; ++i) {
    keys.push_back(MakeKey("acme"));
  }
  std::atomic<size_t> num_revoked = 0;
  std::atomic<bool> stop = false;
  std::atomic<int> let_in = 0;
  std::vector<std::thread> readers;
  for (int i = 0; i < 2; ++i) {
    readers.emplace_back([&] {
      while (!stop) {
        const size_t revoked = num_revoked;
        for (size_t k = 0; k < revoked; ++k) {
          let_in += directory_->AuthenticateKey(keys[k].text).ok();
        }
        EXPECT_TRUE(directory_->AuthenticateKey(keys.back().text).ok());
      }
    });
  }
  for (size_t k = 0; k + 1 < keys.size(); ++k) {
    ASSERT_TRUE(directory_->RevokeKey(keys[k].record.id, source_).ok());
    num_revoked = k + 1;
  }
  stop = true;
  for (std::thread& reader : readers) {
    reader.join();
  }
  EXPECT_EQ(let_in, 0);
}

}  // namespace
}  // namespace tenon
