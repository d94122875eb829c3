// What a local store makes of a folder that a crash, a disk or a person has touched.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "adapters/store/local_store.h"
#include "gmock/gmock.h"
#include "tests/adapters/store/store_test_fixture.h"

namespace tenon {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

using StoreRecoveryTest = StoreTest;

absl::Status CreateError(const std::filesystem::path& root) {
  return LocalAdapterStore::Create(root.string()).status();
}

TEST_F(StoreRecoveryTest, LeftoverUploadsAreSwept) {
  store_.reset();
  std::filesystem::create_directories(tmp() / "upload-0" / "deeper");
  Overwrite(tmp() / "upload-0" / "adapter_model.safetensors", "half");
  Overwrite(tmp() / "stray", "file");
  Reopen();
  EXPECT_EQ(CountEntries(tmp()), 0);
}

TEST_F(StoreRecoveryTest, SweepDoesNotFollowLinks) {
  const std::filesystem::path outside = root_.string() + "-outside";
  std::filesystem::create_directory(outside);
  Overwrite(outside / "precious", "x");
  store_.reset();
  std::filesystem::create_symlink(outside, tmp() / "link");
  std::filesystem::create_symlink(outside, blobs() / "link");
  Reopen();
  EXPECT_TRUE(std::filesystem::exists(outside / "precious"));
  EXPECT_FALSE(std::filesystem::exists(std::filesystem::symlink_status(tmp() / "link")));
  EXPECT_FALSE(std::filesystem::exists(std::filesystem::symlink_status(blobs() / "link")));
  std::filesystem::remove_all(outside);
}

TEST_F(StoreRecoveryTest, BlobsWithoutRowAreSwept) {
  ASSERT_TRUE(Put("acme", "fr", AdapterFiles("a")).ok());
  store_.reset();
  Overwrite(blobs() / std::string(64, '0'), "orphan");
  Reopen();
  EXPECT_EQ(CountEntries(blobs()), 2);
  EXPECT_TRUE(Read({"acme", "fr", 1}).ok());
}

TEST_F(StoreRecoveryTest, RottenBlobIsDataLossAndOthersServe) {
  ASSERT_TRUE(Put("acme", "fr", AdapterFiles("weights")).ok());
  ASSERT_TRUE(Put("acme", "de", AdapterFiles("others")).ok());
  Overwrite(BlobOf("weights"), "weighty");  // same size
  const absl::Status status = Read({"acme", "fr", 1}).status();
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("acme/fr@1"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("adapter_model.safetensors"));
  EXPECT_TRUE(Read({"acme", "de", 1}).ok());
}

TEST_F(StoreRecoveryTest, RottenBlobIsReadOnlyOnce) {
  ASSERT_TRUE(Put("acme", "fr", AdapterFiles("weights")).ok());
  const std::filesystem::path blob = BlobOf("weights");
  Overwrite(blob, "weighty");
  EXPECT_TRUE(absl::IsDataLoss(Read({"acme", "fr", 1}).status()));
  EXPECT_THAT(Quarantined(), ElementsAre("acme/fr@1"));
  // The verdict holds although the bytes are right again: nobody reads them.
  Overwrite(blob, "weights");
  EXPECT_TRUE(absl::IsDataLoss(Read({"acme", "fr", 1}).status()));
}

TEST_F(StoreRecoveryTest, SameUploadRepairsRottenBlob) {
  ASSERT_TRUE(Put("acme", "fr", AdapterFiles("weights")).ok());
  Overwrite(BlobOf("weights"), "weighty");
  ASSERT_TRUE(absl::IsDataLoss(Read({"acme", "fr", 1}).status()));
  bool created = true;
  ASSERT_TRUE(Put("acme", "fr", AdapterFiles("weights"), &created).ok());
  EXPECT_FALSE(created);
  EXPECT_TRUE(Read({"acme", "fr", 1}).ok());
  EXPECT_THAT(Quarantined(), IsEmpty());
}

TEST_F(StoreRecoveryTest, MissingOrCutBlobsAreFoundAtStart) {
  ASSERT_TRUE(Put("acme", "cut", AdapterFiles("weights")).ok());
  ASSERT_TRUE(Put("acme", "gone", AdapterFiles("w")).ok());
  ASSERT_TRUE(Put("acme", "good", AdapterFiles("good")).ok());
  Overwrite(BlobOf("weights"), "weigh");
  std::filesystem::remove(BlobOf("w"));
  Reopen();
  EXPECT_THAT(Quarantined(), ElementsAre("acme/cut@1", "acme/gone@1"));
  EXPECT_THAT(*store_->List(), SizeIs(3));
  EXPECT_TRUE(absl::IsDataLoss(Read({"acme", "cut", 1}).status()));
  EXPECT_TRUE(absl::IsDataLoss(Read({"acme", "gone", 1}).status()));
  EXPECT_TRUE(Read({"acme", "good", 1}).ok());
}

TEST_F(StoreRecoveryTest, BlobThatVanishesWhileRunningIsDataLoss) {
  ASSERT_TRUE(Put("acme", "fr", AdapterFiles("weights")).ok());
  std::filesystem::remove(BlobOf("weights"));
  EXPECT_TRUE(absl::IsDataLoss(Read({"acme", "fr", 1}).status()));
}

TEST_F(StoreRecoveryTest, DamagedVersionCanBeDeleted) {
  ASSERT_TRUE(Put("acme", "fr", AdapterFiles("weights")).ok());
  std::filesystem::remove(BlobOf("weights"));
  Reopen();
  EXPECT_TRUE(Delete({"acme", "fr", 1}).ok());
  EXPECT_THAT(Quarantined(), IsEmpty());
  EXPECT_EQ(CountEntries(blobs()), 0);
}

TEST_F(StoreRecoveryTest, SecondStoreOnOneRootIsRefused) {
  const absl::Status status = CreateError(root_);
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(root_.string()));
  EXPECT_THAT(std::string(status.message()), HasSubstr("another process"));
}

TEST_F(StoreRecoveryTest, LockGoesWithTheProcessThatHeldIt) {
  store_.reset();
  const pid_t child = fork();
  if (child == 0) {  // Dies with the store open.
    auto store = LocalAdapterStore::Create(root_.string());
    _exit(store.ok() ? 0 : 1);
  }
  int exit_status = -1;
  ASSERT_EQ(waitpid(child, &exit_status, 0), child);
  ASSERT_EQ(exit_status, 0);
  Reopen();
  EXPECT_NE(store_, nullptr);
}

TEST_F(StoreRecoveryTest, RootThatCannotBeWrittenIsNamed) {
  if (geteuid() == 0) {  // Root may write anywhere: a file in the way does instead.
    const std::filesystem::path file = root_ / "file";
    Overwrite(file, "");
    const absl::Status status = CreateError(file / "store");
    EXPECT_FALSE(status.ok());
    EXPECT_THAT(std::string(status.message()), HasSubstr((file / "store").string()));
    return;
  }
  const std::filesystem::path folder = root_ / "readonly";
  std::filesystem::create_directory(folder);
  chmod(folder.c_str(), 0500);
  const absl::Status status = CreateError(folder);
  EXPECT_TRUE(absl::IsPermissionDenied(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(folder.string()));
}

TEST_F(StoreRecoveryTest, DamagedCatalogueIsDataLoss) {
  store_.reset();
  Overwrite(root_ / "catalogue.db", std::string(8192, 'x'));
  const absl::Status status = CreateError(root_);
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
}

TEST_F(StoreRecoveryTest, NewerCatalogueIsRefused) {
  store_.reset();
  {
    absl::StatusOr<SqliteConnection> db =
        SqliteConnection::Open((root_ / "catalogue.db").string(), "test");
    ASSERT_TRUE(db.ok()) << db.status();
    ASSERT_TRUE(db->Execute("UPDATE schema_version SET version = 99").ok());
  }
  const absl::Status status = CreateError(root_);
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("99"));
}

TEST_F(StoreRecoveryTest, LinkInPlaceOfAFolderIsRefused) {
  store_.reset();
  const std::filesystem::path outside = root_.string() + "-outside";
  std::filesystem::create_directory(outside);
  std::filesystem::remove_all(tmp());
  std::filesystem::create_directory_symlink(outside, tmp());
  EXPECT_TRUE(absl::IsFailedPrecondition(CreateError(root_))) << CreateError(root_);
  std::filesystem::remove_all(outside);
}

}  // namespace
}  // namespace tenon
