// S3AdapterStore against a real S3 server, through a proxy that fails on demand. Two stores on one
// bucket are two replicas.
#include "adapters/store/s3_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <atomic>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "adapters/base/error_metadata.h"
#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"
#include "tests/adapters/s3/fault_proxy.h"
#include "tests/adapters/s3/s3_test_server.h"

namespace tenon {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;
using Fault = FaultProxy::Fault;
using FileTexts = std::map<std::string, std::string>;

// The time that a caller may wait for a store that is down or slow (retries and one last try).
constexpr absl::Duration kWorstWait = absl::Seconds(5);

std::string Text(const FileBytes& file) {
  return {reinterpret_cast<const char*>(file.bytes.data()), file.bytes.size()};
}

CommitOrder OrderFor(const std::string& alias) {
  CommitOrder order;
  order.alias = alias;
  return order;
}

FileTexts Adapter(const std::string& weights) {
  return {{"adapter_config.json", "{\"peft_type\":\"LORA\"}"},
          {"adapter_model.safetensors", weights}};
}

class S3StoreTest : public testing::Test {
 protected:
  S3StoreTest() {
    std::string pattern = testing::TempDir() + "/tenon-s3-XXXXXX";
    root_ = mkdtemp(pattern.data());
    server_ = std::make_unique<S3TestServer>(root_.string());
    proxy_ = std::make_unique<FaultProxy>(server_->port());
  }
  ~S3StoreTest() override {
    stores_.clear();
    proxy_.reset();
    server_.reset();
    std::filesystem::remove_all(root_);
  }

  absl::StatusOr<std::unique_ptr<S3AdapterStore>> OpenStore(const std::string& cache) {
    S3AdapterStore::Options options;
    options.client = S3TestServer::ClientOptions(proxy_->port());
    options.cache_folder = (root_ / cache).string();
    options.clock = [this] { return absl::Now() + skew_; };
    options.draw_nonce = [this] { return absl::StrCat("nonce-", nonce_++); };
    return S3AdapterStore::Create(std::move(options));
  }
  S3AdapterStore& Replica(const std::string& cache) {
    auto& store = stores_[cache];
    if (store == nullptr) {
      auto opened = OpenStore(cache);
      EXPECT_TRUE(opened.ok()) << opened.status();
      store = *std::move(opened);
    }
    return *store;
  }
  void Close(const std::string& cache) { stores_.erase(cache); }

  static absl::StatusOr<CommittedVersion> Put(S3AdapterStore& store, const std::string& name,
                                              const FileTexts& files, CommitOrder order = {}) {
    TENON_ASSIGN_OR_RETURN(std::unique_ptr<StagedUpload> upload, store.Begin(64 << 20));
    for (const auto& [file, text] : files) {
      TENON_RETURN_IF_ERROR(
          upload->Append(file, std::as_bytes(std::span(text.data(), text.size()))));
    }
    TENON_RETURN_IF_ERROR(upload->Seal().status());
    AdapterInfo facts;
    facts.id = AdapterId{"acme", name, 0};
    facts.method = "LORA";
    return store.Commit(std::move(upload), std::move(facts), order);
  }
  static absl::StatusOr<std::string> Weights(S3AdapterStore& store, const std::string& name,
                                             int64_t version) {
    TENON_ASSIGN_OR_RETURN(const FileSet files, store.Open({"acme", name, version}));
    return Text(files.at("adapter_model.safetensors"));
  }
  static AliasMove Move(const std::string& alias, int64_t version, int64_t expected) {
    return {"acme", "fr", alias, version, expected, AliasAction::kPromote, "key:test"};
  }

  // The one object of the bucket below `prefix` whose content is `text`.
  std::filesystem::path ObjectWith(const std::string& prefix, const std::string& text) const {
    for (const auto& entry :
         std::filesystem::recursive_directory_iterator(root_ / "data/models/prod" / prefix)) {
      if (!entry.is_regular_file()) {
        continue;
      }
      std::ifstream file(entry.path(), std::ios::binary);
      const std::string content((std::istreambuf_iterator<char>(file)), {});
      if (content == text) {
        return entry.path();
      }
    }
    ADD_FAILURE() << "no object holds " << text;
    return {};
  }
  int64_t CountObjects(const std::string& prefix) {
    return static_cast<int64_t>(
        S3Client(S3TestServer::ClientOptions(server_->port())).List(prefix)->size());
  }

  std::filesystem::path root_;
  std::unique_ptr<S3TestServer> server_;
  std::unique_ptr<FaultProxy> proxy_;
  std::atomic<int64_t> nonce_ = 0;
  absl::Duration skew_;  // of the stores' clock
  std::map<std::string, std::unique_ptr<S3AdapterStore>> stores_;
};

TEST_F(S3StoreTest, VersionsAndAliasesAreSharedByReplicas) {
  S3AdapterStore& one = Replica("one");
  S3AdapterStore& two = Replica("two");
  const auto first = Put(one, "fr", Adapter("a"));
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ(first->info.id.version, 1);
  EXPECT_TRUE(first->created);
  const auto second = Put(two, "fr", Adapter("b"), OrderFor("canary"));
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ(second->info.id.version, 2) << "though it had not refreshed";
  EXPECT_THAT(second->name.after.pointers.aliases,
              ElementsAre(testing::Pair("canary", 2), testing::Pair("latest", 1)));
  const auto changed = one.Refresh();
  ASSERT_TRUE(changed.ok()) << changed.status();
  ASSERT_THAT(*changed, SizeIs(1));
  EXPECT_EQ(changed->at(0).versions.size(), 2u);
  EXPECT_EQ(*Weights(one, "fr", 2), "b");
  EXPECT_EQ(*Weights(two, "fr", 1), "a");
  EXPECT_THAT(*one.Refresh(), IsEmpty()) << "nothing changed since";
  ASSERT_TRUE(two.Refresh().ok());
  EXPECT_EQ(one.status().generation, two.status().generation);
}

TEST_F(S3StoreTest, SameBytesAreTheSameVersionWhoeverSendsThem) {
  ASSERT_TRUE(Put(Replica("one"), "fr", Adapter("a")).ok());
  const auto again = Put(Replica("two"), "fr", Adapter("a"));
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_FALSE(again->created);
  EXPECT_EQ(again->info.id.version, 1);
  EXPECT_EQ(CountObjects("versions/"), 1);
}

TEST_F(S3StoreTest, OneOfTwoPromotionsWinsAndTheOtherHearsWhatHolds) {
  S3AdapterStore& one = Replica("one");
  S3AdapterStore& two = Replica("two");
  for (const char* weights : {"a", "b", "c"}) {
    ASSERT_TRUE(Put(one, "fr", Adapter(weights)).ok());
  }
  ASSERT_TRUE(one.MoveAlias(Move("stable", 1, 0)).ok());
  ASSERT_TRUE(two.MoveAlias(Move("stable", 2, 1)).ok()) << "it reads before it writes";
  const absl::Status lost = one.MoveAlias(Move("stable", 3, 1)).status();
  EXPECT_EQ(lost.code(), absl::StatusCode::kAborted);
  EXPECT_EQ(GetErrorMetadata(lost).at("current_version"), "2");
}

TEST_F(S3StoreTest, ManyWritersLoseNothing) {
  constexpr int kWriters = 4, kEach = 5;
  std::vector<std::thread> writers;
  std::atomic<int> stored = 0;
  for (int w = 0; w < kWriters; ++w) {
    S3AdapterStore& store = Replica(absl::StrCat("replica-", w));
    writers.emplace_back([&store, &stored, w] {
      for (int i = 0; i < kEach; ++i) {
        const auto put = Put(store, "fr", Adapter(absl::StrCat("w", w, "-", i)));
        EXPECT_TRUE(put.ok()) << put.status();
        stored += put.ok() && put->created;
      }
    });
  }
  for (std::thread& writer : writers) {
    writer.join();
  }
  EXPECT_EQ(stored, kWriters * kEach);
  const auto name = Replica("witness").Name("acme", "fr");
  ASSERT_TRUE(name.ok()) << name.status();
  EXPECT_EQ(name->versions.size(), static_cast<size_t>(kWriters * kEach));
  EXPECT_THAT(*Replica("witness").History("acme", "fr"), SizeIs(kWriters * kEach));
}

TEST_F(S3StoreTest, RestartFindsEverythingAndSoDoesAnEmptyCache) {
  ASSERT_TRUE(Put(Replica("one"), "fr", Adapter("a")).ok());
  ASSERT_TRUE(Put(Replica("one"), "it", Adapter("b")).ok());
  Close("one");
  EXPECT_THAT(*Replica("one").Names(), SizeIs(2));
  EXPECT_EQ(*Weights(Replica("fresh"), "it", 1), "b");
}

TEST_F(S3StoreTest, DeletionFreesBlobsThatNobodyElseHolds) {
  S3AdapterStore& store = Replica("one");
  ASSERT_TRUE(Put(store, "fr", Adapter("a")).ok());
  ASSERT_TRUE(Put(store, "fr", Adapter("b")).ok());
  ASSERT_TRUE(Put(store, "it", Adapter("b")).ok());
  EXPECT_EQ(CountObjects("blobs/"), 3) << "the config is shared";
  EXPECT_EQ(store.Delete({"acme", "fr", 2}, {}, "key:test").status().code(),
            absl::StatusCode::kFailedPrecondition)
      << "latest points to it";
  ASSERT_TRUE(store.Delete({"acme", "fr", 1}, {}, "key:test").ok());
  EXPECT_EQ(CountObjects("blobs/"), 2) << "a is gone, b is it's";
  ASSERT_TRUE(store.DeleteName("acme", "fr", "key:test").ok());
  EXPECT_EQ(*Weights(store, "it", 1), "b");
  const auto again = Put(store, "fr", Adapter("c"));
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->info.id.version, 3) << "numbers are not used twice";
}

TEST_F(S3StoreTest, LargeFileGoesUpInPartsAndComesBackWhole) {
  const std::string weights(20 << 20, 'w');
  ASSERT_TRUE(Put(Replica("one"), "fr", Adapter(weights)).ok());
  EXPECT_GE(proxy_->CountOf("partNumber="), 3);
  EXPECT_EQ(*Weights(Replica("two"), "fr", 1), weights);
}

// Row 20 of the reliability bar: what is here goes on, what is not is UNAVAILABLE within 5 s, and
// all is well again at once when the store is.
TEST_F(S3StoreTest, StoreThatIsDownStalledOrBusyDelaysNobodyLong) {
  ASSERT_TRUE(Put(Replica("writer"), "fr", Adapter("a")).ok());
  ASSERT_TRUE(Put(Replica("writer"), "it", Adapter("b")).ok());
  S3AdapterStore& store = Replica("one");
  ASSERT_EQ(*Weights(store, "fr", 1), "a");
  const std::pair<const char*, Fault> faults[] = {{"down", Fault::kDown},
                                                  {"stalled", Fault::kStalled},
                                                  {"busy (503)", Fault::kBusy},
                                                  {"slow", Fault::kSlow},
                                                  {"torn", Fault::kTorn}};
  for (const auto& [name, fault] : faults) {
    SCOPED_TRACE(name);
    proxy_->Set(fault);
    const absl::Time begin = absl::Now();
    EXPECT_EQ(*Weights(store, "fr", 1), "a") << "what is cached";
    const absl::Duration warm = absl::Now() - begin;
    const absl::StatusOr<std::string> cold = Weights(store, "it", 1);
    const absl::Duration took = absl::Now() - begin - warm;
    proxy_->Set(Fault::kNone);
    std::printf("%-10s cached in %.1f ms, cold: %s after %.2f s\n", name,
                absl::ToDoubleMilliseconds(warm),
                std::string(absl::StatusCodeToString(cold.status().code())).c_str(),
                absl::ToDoubleSeconds(took));
    EXPECT_EQ(cold.status().code(), absl::StatusCode::kUnavailable) << cold.status();
    EXPECT_LE(took, kWorstWait);
    EXPECT_LT(warm, absl::Seconds(1));
  }
  const absl::Time healed = absl::Now();
  EXPECT_EQ(*Weights(store, "it", 1), "b");
  std::printf("healed in %.1f ms\n", absl::ToDoubleMilliseconds(absl::Now() - healed));
}

TEST_F(S3StoreTest, ManyWhoWaitForOneColdBlobCauseOneFetch) {
  ASSERT_TRUE(Put(Replica("writer"), "fr", Adapter("a")).ok());
  S3AdapterStore& store = Replica("one");
  const int before = proxy_->CountOf("GET /models/prod/blobs/");
  std::vector<std::thread> readers;
  for (int i = 0; i < 32; ++i) {
    readers.emplace_back([&] { EXPECT_EQ(*Weights(store, "fr", 1), "a"); });
  }
  for (std::thread& reader : readers) {
    reader.join();
  }
  EXPECT_EQ(proxy_->CountOf("GET /models/prod/blobs/") - before, 2) << "its two files, once each";
}

TEST_F(S3StoreTest, WrongBytesAreNotServedAndARepairIsNoticed) {
  ASSERT_TRUE(Put(Replica("writer"), "fr", Adapter("good")).ok());
  S3AdapterStore& store = Replica("one");
  // Changed under us, by hand.
  std::ofstream(ObjectWith("blobs", "good"), std::ios::trunc) << "evil";
  EXPECT_EQ(Weights(store, "fr", 1).status().code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(store.Names()->at(0).quarantined, SizeIs(1));
  EXPECT_THAT(*store.Refresh(), IsEmpty()) << "it is not fetched again and again";
  // The same bytes once more repair the object; the other replica sees that within half a minute.
  const absl::Status lost = Weights(Replica("writer-2"), "fr", 1).status();
  EXPECT_EQ(lost.code(), absl::StatusCode::kDataLoss);
  ASSERT_TRUE(Put(Replica("writer-2"), "fr", Adapter("good")).ok());
  skew_ = absl::Seconds(30);
  const auto changed = store.Refresh();
  ASSERT_TRUE(changed.ok()) << changed.status();
  ASSERT_THAT(*changed, SizeIs(1));
  EXPECT_THAT(changed->at(0).quarantined, IsEmpty());
  EXPECT_EQ(*Weights(store, "fr", 1), "good");
}

TEST_F(S3StoreTest, ByteThatChangedOnTheWayIsNotServed) {
  ASSERT_TRUE(Put(Replica("writer"), "fr", Adapter("good")).ok());
  S3AdapterStore& store = Replica("one");
  proxy_->SetOnly("blobs/");
  proxy_->Set(Fault::kCorrupt);
  EXPECT_EQ(Weights(store, "fr", 1).status().code(), absl::StatusCode::kDataLoss);
}

TEST_F(S3StoreTest, RottenCachedCopyIsFetchedAnew) {
  S3AdapterStore& store = Replica("one");
  ASSERT_TRUE(Put(store, "fr", Adapter("good")).ok());
  for (const auto& entry : std::filesystem::directory_iterator(root_ / "one/blobs/sha256")) {
    std::ofstream(entry.path(), std::ios::trunc) << "rot";
  }
  EXPECT_EQ(*Weights(store, "fr", 1), "good");
}

TEST_F(S3StoreTest, OutageAtStartServesWhatIsCachedAndSaysSo) {
  ASSERT_TRUE(Put(Replica("writer"), "it", Adapter("b")).ok());
  ASSERT_TRUE(Put(Replica("one"), "fr", Adapter("a")).ok());
  ASSERT_TRUE(Replica("one").Refresh().ok());  // and leaves a copy of the catalogue
  Close("one");
  proxy_->Set(Fault::kDown);
  S3AdapterStore& store = Replica("one");
  EXPECT_FALSE(store.status().reached);
  EXPECT_FALSE(store.status().current);
  EXPECT_THAT(*store.Names(), SizeIs(2));
  EXPECT_EQ(*Weights(store, "fr", 1), "a");
  EXPECT_EQ(Weights(store, "it", 1).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(Put(store, "fr", Adapter("c")).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(store.Refresh().status().code(), absl::StatusCode::kUnavailable);
  proxy_->Set(Fault::kNone);
  ASSERT_TRUE(store.Refresh().ok());
  EXPECT_TRUE(store.status().reached);
  EXPECT_TRUE(store.status().current);
  EXPECT_EQ(*Weights(store, "it", 1), "b");
}

TEST_F(S3StoreTest, UploadThatBreaksOffIsNotThereAndItsNumberIsNotUsedByAnother) {
  ASSERT_TRUE(Put(Replica("one"), "fr", Adapter("a")).ok());
  proxy_->SetOnly("/names/");
  proxy_->Set(Fault::kDown);  // after the blobs and the version's object
  EXPECT_EQ(Put(Replica("one"), "fr", Adapter("b")).status().code(),
            absl::StatusCode::kUnavailable);
  proxy_->Set(Fault::kNone);
  ASSERT_TRUE(Replica("two").Refresh().ok());
  EXPECT_EQ(Replica("two").Name("acme", "fr")->versions.size(), 1u);
  EXPECT_TRUE(Put(Replica("two"), "fr", Adapter("c")).ok());
}

TEST_F(S3StoreTest, StrangeObjectsAreLeftOutAndTheOthersGoOn) {
  ASSERT_TRUE(Put(Replica("one"), "fr", Adapter("a")).ok());
  const S3Client client(S3TestServer::ClientOptions(server_->port()));
  for (const auto& [key, text] : std::map<std::string, std::string>{
           {"names/acme/zero.json", ""},
           {"names/acme/deep.json", std::string(100'000, '[')},
           {"names/acme/other.json", "{\"format\": 1, \"tenant\": \"acme\", \"name\": \"fr\"}"},
           {"names/acme/new.json", "{\"format\": 99}"}}) {
    ASSERT_TRUE(client.Put(key, text).ok());
  }
  S3AdapterStore& store = Replica("fresh");
  EXPECT_THAT(*store.Names(), SizeIs(1));
  EXPECT_EQ(*Weights(store, "fr", 1), "a");
  EXPECT_FALSE(store.status().current) << "and it says that it does not see all";
}

TEST_F(S3StoreTest, SecondProcessOnOneCacheIsRefused) {
  Replica("one");
  EXPECT_EQ(OpenStore("one").status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(S3StoreTest, WrongCredentialsAreSaidAtStart) {
  S3AdapterStore::Options options;
  options.client = S3TestServer::ClientOptions(proxy_->port());
  options.client.credentials = [] { return S3Credentials{"tenon", "wrong-secret", ""}; };
  options.cache_folder = (root_ / "one").string();
  options.clock = [] { return absl::Now(); };
  options.draw_nonce = [] { return ""; };
  const absl::Status status = S3AdapterStore::Create(std::move(options)).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied) << status;
  EXPECT_THAT(std::string(status.message()), testing::Not(HasSubstr("wrong-secret")));
}

}  // namespace
}  // namespace tenon
