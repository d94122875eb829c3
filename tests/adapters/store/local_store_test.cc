// What a local store promises while all goes well, and to many callers at once.
#include "adapters/store/local_store.h"

#include <algorithm>
#include <set>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"
#include "gmock/gmock.h"
#include "tests/adapters/store/store_test_fixture.h"

namespace tenon {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

using LocalStoreTest = StoreTest;

TEST_F(LocalStoreTest, OpenGivesWhatWasCommitted) {
  const FileTexts files = AdapterFiles("weights");
  const absl::StatusOr<AdapterInfo> info = Put("acme", "fr", files);
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(info->id, (AdapterId{"acme", "fr", 1}));
  EXPECT_EQ(info->stored_bytes, 20 + 7);
  EXPECT_EQ(info->created, now_);

  const absl::StatusOr<FileTexts> read = Read(info->id);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(*read, files);
}

TEST_F(LocalStoreTest, EveryFieldSurvivesRestart) {
  absl::StatusOr<std::unique_ptr<StagedUpload>> upload = Stage(AdapterFiles("w"));
  ASSERT_TRUE(upload.ok()) << upload.status();
  AdapterInfo facts;
  facts.id = AdapterId{"acme", "fr", 0};
  facts.method = "RSLORA";
  facts.num_parameters = 1'000'000'000'000;
  facts.max_rank = 64;
  facts.num_sites = 210;
  facts.num_untouched_sites = 30;
  facts.num_virtual_tokens = 20;
  facts.delta_norm_bound = 0.1;
  facts.has_weight = false;
  facts.resident_bytes = 5'000'000'000;
  facts.warnings = {"unused tensor \"x\"", "na\xc3\xafve"};
  facts.acceptance = R"({"passed":true})";
  const absl::StatusOr<CommittedVersion> committed = store_->Commit(*std::move(upload), facts, {});
  ASSERT_TRUE(committed.ok()) << committed.status();
  EXPECT_TRUE(committed->created);
  const AdapterInfo* const put = &committed->info;

  Reopen();
  const absl::StatusOr<std::vector<AdapterInfo>> list = store_->List();
  ASSERT_TRUE(list.ok()) << list.status();
  ASSERT_EQ(list->size(), 1);
  const AdapterInfo& info = list->front();
  EXPECT_EQ(info.id, put->id);
  EXPECT_EQ(info.digest, put->digest);
  EXPECT_EQ(info.method, facts.method);
  EXPECT_EQ(info.num_parameters, facts.num_parameters);
  EXPECT_EQ(info.max_rank, facts.max_rank);
  EXPECT_EQ(info.num_sites, facts.num_sites);
  EXPECT_EQ(info.num_untouched_sites, facts.num_untouched_sites);
  EXPECT_EQ(info.num_virtual_tokens, facts.num_virtual_tokens);
  EXPECT_EQ(info.delta_norm_bound, facts.delta_norm_bound);
  EXPECT_FALSE(info.has_weight);
  EXPECT_EQ(info.stored_bytes, put->stored_bytes);
  EXPECT_EQ(info.resident_bytes, facts.resident_bytes);
  EXPECT_EQ(info.created, now_);
  EXPECT_EQ(info.warnings, facts.warnings);
  EXPECT_EQ(info.acceptance, facts.acceptance);
  EXPECT_TRUE(Read(info.id).ok());
}

TEST_F(LocalStoreTest, DigestIsWhatSha256sumPrints) {
  // printf '{"peft_type":"LORA"}' > adapter_config.json; printf weights > adapter_model.safetensors
  // sha256sum * | sha256sum
  absl::StatusOr<AdapterInfo> info = Put("acme", "fr", AdapterFiles("weights"));
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(info->digest, "1b15694e8a1d593317a85adf9120dc0fd558fc5f05cb82542f01327b13854adb");
}

TEST_F(LocalStoreTest, AppendInPiecesIsOneFile) {
  absl::StatusOr<std::unique_ptr<StagedUpload>> upload = store_->Begin(kMaxBytes);
  ASSERT_TRUE(upload.ok());
  ASSERT_TRUE((*upload)->Append("README.md", AsBytes("one ")).ok());
  ASSERT_TRUE((*upload)->Append("adapter_config.json", AsBytes("{}")).ok());
  ASSERT_TRUE((*upload)->Append("README.md", AsBytes("")).ok());
  ASSERT_TRUE((*upload)->Append("README.md", AsBytes("two")).ok());
  const absl::StatusOr<FileSet> files = (*upload)->Seal();
  ASSERT_TRUE(files.ok()) << files.status();
  ASSERT_EQ(files->size(), 2);
  EXPECT_EQ(AsText(files->at("README.md")), "one two");
  EXPECT_EQ((*upload)->num_bytes(), 9);
}

TEST_F(LocalStoreTest, EmptyFileIsKept) {
  const FileTexts files = {{"adapter_config.json", "{}"}, {"README.md", ""}};
  const absl::StatusOr<AdapterInfo> info = Put("acme", "fr", files);
  ASSERT_TRUE(info.ok()) << info.status();
  const absl::StatusOr<FileTexts> read = Read(info->id);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(*read, files);
}

TEST_F(LocalStoreTest, SameBytesAsNewestAreThatVersion) {
  bool created = false;
  ASSERT_TRUE(Put("acme", "fr", AdapterFiles("a"), &created).ok());
  EXPECT_TRUE(created);
  now_ += absl::Hours(1);
  const absl::StatusOr<AdapterInfo> again = Put("acme", "fr", AdapterFiles("a"), &created);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_FALSE(created);
  EXPECT_EQ(again->id.version, 1);
  EXPECT_EQ(again->created, now_ - absl::Hours(1));
}

TEST_F(LocalStoreTest, SameBytesAsAnyVersionAreThatVersion) {
  ASSERT_TRUE(Put("acme", "fr", AdapterFiles("a")).ok());
  ASSERT_TRUE(Put("acme", "fr", AdapterFiles("b")).ok());
  const absl::StatusOr<CommittedVersion> again = Commit("acme", "fr", AdapterFiles("a"));
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_FALSE(again->created);
  EXPECT_EQ(again->info.id.version, 1);
  EXPECT_EQ(again->name.after.pointers.aliases.at("latest"), 1) << "what was asked to go live does";
  EXPECT_EQ(again->name.after.versions.size(), 2u);
}

TEST_F(LocalStoreTest, SameBytesAsADeletedVersionAreANewOne) {
  ASSERT_TRUE(Put("acme", "fr", AdapterFiles("a")).ok());
  ASSERT_TRUE(Delete({"acme", "fr", 1}).ok());
  EXPECT_EQ(Put("acme", "fr", AdapterFiles("a"))->id.version, 2);
}

TEST_F(LocalStoreTest, VersionNumbersAreNotReusedAfterDelete) {
  ASSERT_TRUE(Put("acme", "fr", AdapterFiles("a")).ok());
  ASSERT_TRUE(Put("acme", "fr", AdapterFiles("b")).ok());
  ASSERT_TRUE(Delete({"acme", "fr", 2}).ok());
  ASSERT_TRUE(Delete({"acme", "fr", 1}).ok());
  Reopen();
  const absl::StatusOr<AdapterInfo> next = Put("acme", "fr", AdapterFiles("b"));
  ASSERT_TRUE(next.ok()) << next.status();
  EXPECT_EQ(next->id.version, 3);
}

TEST_F(LocalStoreTest, TenantsCountApart) {
  ASSERT_TRUE(Put("acme", "fr", AdapterFiles("a")).ok());
  const absl::StatusOr<AdapterInfo> other = Put("bmce", "fr", AdapterFiles("b"));
  ASSERT_TRUE(other.ok()) << other.status();
  EXPECT_EQ(other->id.version, 1);
  const absl::StatusOr<FileTexts> read = Read({"acme", "fr", 1});
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(*read, AdapterFiles("a"));
}

TEST_F(LocalStoreTest, DeleteDropsOnlyBlobsThatNothingNames) {
  ASSERT_TRUE(Put("acme", "fr", AdapterFiles("a")).ok());
  ASSERT_TRUE(Put("acme", "de", AdapterFiles("b")).ok());
  EXPECT_EQ(CountEntries(blobs()), 3);  // one configuration, two weights
  ASSERT_TRUE(Delete({"acme", "fr", 1}).ok());
  EXPECT_EQ(CountEntries(blobs()), 2);
  EXPECT_TRUE(Read({"acme", "de", 1}).ok());
  ASSERT_TRUE(Delete({"acme", "de", 1}).ok());
  EXPECT_EQ(CountEntries(blobs()), 0);
}

TEST_F(LocalStoreTest, DeleteOfAbsentVersionIsNotFound) {
  ASSERT_TRUE(Put("acme", "fr", AdapterFiles("a")).ok());
  const absl::Status status = store_->Delete({"acme", "fr", 2}, {}, "key:test").status();
  EXPECT_TRUE(absl::IsNotFound(status)) << status;
  EXPECT_EQ(GetErrorDetail(status)->subject, "acme/fr@2");
  EXPECT_TRUE(absl::IsNotFound(store_->Delete({"acme", "de", 1}, {}, "key:test").status()));
  EXPECT_TRUE(absl::IsNotFound(store_->DeleteName("acme", "de", "key:test").status()));
  EXPECT_TRUE(absl::IsNotFound(store_->Open({"acme", "fr", 2}).status()));
}

TEST_F(LocalStoreTest, OpenFilesOutliveDelete) {
  ASSERT_TRUE(Put("acme", "fr", AdapterFiles("weights")).ok());
  const absl::StatusOr<FileSet> files = store_->Open({"acme", "fr", 1});
  ASSERT_TRUE(files.ok()) << files.status();
  ASSERT_TRUE(Delete({"acme", "fr", 1}).ok());
  EXPECT_EQ(AsText(files->at("adapter_model.safetensors")), "weights");
}

TEST_F(LocalStoreTest, UploadOverItsLimitIsRefused) {
  absl::StatusOr<std::unique_ptr<StagedUpload>> upload = store_->Begin(10);
  ASSERT_TRUE(upload.ok());
  EXPECT_TRUE((*upload)->Append("adapter_config.json", AsBytes("12345")).ok());
  const absl::Status over = (*upload)->Append("adapter_model.safetensors", AsBytes("123456"));
  EXPECT_TRUE(absl::IsResourceExhausted(over)) << over;
  EXPECT_THAT(std::string(over.message()), HasSubstr("11 bytes"));
  EXPECT_THAT(std::string(over.message()), HasSubstr("max_upload_bytes 10"));
  // An upload that failed once cannot be completed without the bytes it lacks.
  EXPECT_TRUE(absl::IsResourceExhausted((*upload)->Seal().status()));
}

TEST_F(LocalStoreTest, UploadOfExactlyItsLimitIsTaken) {
  absl::StatusOr<std::unique_ptr<StagedUpload>> upload = store_->Begin(5);
  ASSERT_TRUE(upload.ok());
  EXPECT_TRUE((*upload)->Append("adapter_config.json", AsBytes("12345")).ok());
  EXPECT_TRUE((*upload)->Seal().ok());
}

TEST_F(LocalStoreTest, OnlyAdapterFileNamesAreTaken) {
  for (const std::string& name :
       {std::string("../adapter_config.json"), std::string("/etc/passwd"), std::string(""),
        std::string("."), std::string(".."), std::string("adapter_model.bin"),
        std::string("adapter_config.json\0x", 21), std::string("sub/adapter_config.json"),
        std::string(300, 'a')}) {
    absl::StatusOr<std::unique_ptr<StagedUpload>> upload = store_->Begin(kMaxBytes);
    ASSERT_TRUE(upload.ok());
    const absl::Status status = (*upload)->Append(name, AsBytes("x"));
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << name << ": " << status;
    EXPECT_LT(status.message().size(), 600u);
    EXPECT_EQ(CountEntries(tmp()), 1);
    EXPECT_TRUE(std::filesystem::is_empty(*std::filesystem::directory_iterator(tmp())));
  }
}

TEST_F(LocalStoreTest, BadAdapterNamesAreRefused) {
  for (const std::string name : {"", "../x", "a b", ".hidden"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(Put("acme", name, AdapterFiles("a")).status())) << name;
    EXPECT_TRUE(absl::IsInvalidArgument(Put(name, "fr", AdapterFiles("a")).status())) << name;
  }
  EXPECT_EQ(CountEntries(blobs()), 0);
}

TEST_F(LocalStoreTest, UploadWithoutFilesIsRefused) {
  absl::StatusOr<std::unique_ptr<StagedUpload>> upload = store_->Begin(kMaxBytes);
  ASSERT_TRUE(upload.ok());
  EXPECT_TRUE(absl::IsInvalidArgument((*upload)->Seal().status()));
}

TEST_F(LocalStoreTest, SealedUploadTakesNoMore) {
  absl::StatusOr<std::unique_ptr<StagedUpload>> upload = Stage(AdapterFiles("a"));
  ASSERT_TRUE(upload.ok());
  EXPECT_TRUE(absl::IsFailedPrecondition((*upload)->Append("README.md", AsBytes("x"))));
}

TEST_F(LocalStoreTest, UnsealedUploadIsNotCommitted) {
  absl::StatusOr<std::unique_ptr<StagedUpload>> upload = store_->Begin(kMaxBytes);
  ASSERT_TRUE(upload.ok());
  ASSERT_TRUE((*upload)->Append("adapter_config.json", AsBytes("{}")).ok());
  AdapterInfo facts;
  facts.id = AdapterId{"acme", "fr", 0};
  EXPECT_TRUE(absl::IsFailedPrecondition(store_->Commit(*std::move(upload), facts, {}).status()));
  EXPECT_THAT(*store_->List(), IsEmpty());
}

TEST_F(LocalStoreTest, DroppedUploadLeavesNothing) {
  {
    absl::StatusOr<std::unique_ptr<StagedUpload>> upload = Stage(AdapterFiles("a"));
    ASSERT_TRUE(upload.ok());
    EXPECT_EQ(CountEntries(tmp()), 1);
  }
  EXPECT_EQ(CountEntries(tmp()), 0);
  EXPECT_EQ(CountEntries(blobs()), 0);
}

TEST_F(LocalStoreTest, CommittedUploadLeavesNothingInTmp) {
  ASSERT_TRUE(Put("acme", "fr", AdapterFiles("a")).ok());
  EXPECT_EQ(CountEntries(tmp()), 0);
}

TEST_F(LocalStoreTest, ListIsOrdered) {
  ASSERT_TRUE(Put("b", "x", AdapterFiles("1")).ok());
  ASSERT_TRUE(Put("a", "y", AdapterFiles("2")).ok());
  for (int i = 0; i < 11; ++i) {
    ASSERT_TRUE(Put("a", "x", AdapterFiles(absl::StrCat("3", i))).ok());
  }
  std::vector<AdapterId> ids;
  const absl::StatusOr<std::vector<AdapterInfo>> list = store_->List();
  ASSERT_TRUE(list.ok()) << list.status();
  for (const AdapterInfo& info : *list) {
    ids.push_back(info.id);
  }
  EXPECT_EQ(ids.size(), 13);
  EXPECT_TRUE(std::is_sorted(ids.begin(), ids.end()));
}

TEST_F(LocalStoreTest, ConcurrentUploadsOfOneNameGetDistinctVersions) {
  constexpr int kThreads = 8;
  constexpr int kUploads = 5;
  std::vector<std::thread> threads;
  std::vector<std::vector<int64_t>> versions(kThreads);
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([this, t, &versions] {
      for (int i = 0; i < kUploads; ++i) {
        const absl::StatusOr<AdapterInfo> info =
            Put("acme", "fr", AdapterFiles(absl::StrCat(t, "-", i)));
        ASSERT_TRUE(info.ok()) << info.status();
        versions[t].push_back(info->id.version);
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  std::set<int64_t> distinct;
  for (const std::vector<int64_t>& some : versions) {
    distinct.insert(some.begin(), some.end());
  }
  EXPECT_EQ(distinct.size(), kThreads * kUploads);
  EXPECT_EQ(*distinct.begin(), 1);
  EXPECT_EQ(*distinct.rbegin(), kThreads * kUploads);
}

TEST_F(LocalStoreTest, ReadersAndDeletersDoNotDisturbEachOther) {
  ASSERT_TRUE(Put("acme", "kept", AdapterFiles("kept")).ok());
  std::thread churn([this] {
    for (int i = 1; i <= 20; ++i) {
      ASSERT_TRUE(Put("acme", "fr", AdapterFiles(absl::StrCat(i))).ok());
      ASSERT_TRUE(Delete({"acme", "fr", i}).ok());
    }
  });
  for (int i = 0; i < 50; ++i) {
    const absl::StatusOr<FileTexts> read = Read({"acme", "kept", 1});
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(*read, AdapterFiles("kept"));
  }
  churn.join();
  EXPECT_EQ(CountEntries(blobs()), 2);
}

}  // namespace
}  // namespace tenon
