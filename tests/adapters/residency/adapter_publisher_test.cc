#include "adapters/residency/adapter_publisher.h"

#include <ATen/core/Tensor.h>

#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "gmock/gmock.h"
#include "tests/adapters/formats/safetensors_builder.h"
#include "tests/adapters/store/store_test_fixture.h"

namespace tenon {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

// One layer with one query projection, 8 -> 8.
BaseShape TinyBase() {
  BaseShape base;
  base.model_type = "llama";
  base.num_layers = 1;
  base.hidden_size = 8;
  base.modules["model.layers.0.self_attn.q_proj"] = {0, Site::kQ, 8, 8};
  return base;
}

// A rank 2 adapter of TinyBase, told from others by `value`: 16 + 16 parameters.
FileTexts Lora(float value, int64_t in = 8) {
  const std::string module = "base_model.model.model.layers.0.self_attn.q_proj";
  return {{"adapter_config.json",
           R"({"peft_type":"LORA","r":2,"lora_alpha":4,"target_modules":["q_proj"]})"},
          {"adapter_model.safetensors", tenon::testing::SafetensorsBuilder()
                                            .AddFilled(module + ".lora_A.weight", {2, in}, value)
                                            .AddFilled(module + ".lora_B.weight", {8, 2}, 1.0f)
                                            .Build()}};
}

class AdapterPublisherTest : public StoreTest {
 protected:
  // down [2, 8], and up packed: rank 2 by one panel of 32 columns.
  static constexpr int64_t kResidentBytes = (2 * 8 + 2 * 32) * sizeof(float);

  AdapterPublisherTest() { Restart(); }
  ~AdapterPublisherTest() override { cache_.reset(); }

  // A new server process on the same store.
  void Restart(int64_t cache_bytes = 1 << 20, int64_t max_adapters = 100) {
    cache_.reset();
    publisher_.reset();
    Reopen();
    registry_ = std::make_unique<AdapterRegistry>();
    versions_ = std::make_unique<AdapterVersions>(store_.get(), registry_.get(), max_adapters);
    AdapterPublisher::Options options;
    options.base = TinyBase();
    publisher_ = std::make_unique<AdapterPublisher>(options, versions_.get());
    cache_ = std::make_unique<AdapterCache>(
        cache_bytes, [this](const AdapterInfo& info) { return publisher_->Compile(info); });
    publisher_->set_cache(cache_.get());
    const absl::Status restored = versions_->Restore();
    ASSERT_TRUE(restored.ok()) << restored;
  }

  absl::StatusOr<AdapterInfo> Publish(const std::string& tenant, const std::string& name,
                                      const FileTexts& files, const std::string& expected = "") {
    TENON_ASSIGN_OR_RETURN(std::unique_ptr<StagedUpload> upload, publisher_->BeginUpload());
    for (const auto& [file_name, text] : files) {
      TENON_RETURN_IF_ERROR(upload->Append(file_name, AsBytes(text)));
    }
    TENON_ASSIGN_OR_RETURN(AdapterCandidate candidate,
                           publisher_->Prepare(tenant, name, std::move(upload), expected));
    TENON_ASSIGN_OR_RETURN(CommittedVersion committed,
                           publisher_->Commit(std::move(candidate), {}, kReport));
    return std::move(committed.info);
  }

  absl::Status Delete(const std::string& tenant, const AdapterRef& ref) {
    return versions_->Delete(tenant, ref, /*force=*/true, "key:test").status();
  }

  // Loads through the cache as the engine does, and gives the first element of the down matrix.
  absl::StatusOr<float> LoadedValue(const AdapterHandle& adapter) {
    absl::Notification done;
    cache_->Prefetch(adapter, [&done] { done.Notify(); });
    done.WaitForNotification();
    TENON_ASSIGN_OR_RETURN(const auto compiled, cache_->Pin(adapter->digest));
    return compiled->delta(0, Site::kQ)->low_rank.down.const_data_ptr<float>()[0];
  }

  std::vector<std::string> LiveIds(const std::string& tenant) const {
    std::vector<std::string> ids;
    for (const AdapterStatus& status : registry_->List(tenant)) {
      if (status.state == AdapterState::kLive) {
        ids.push_back(status.adapter.id().ToString());
      }
    }
    return ids;
  }

  static constexpr char kReport[] = R"({"passed":true})";

  std::unique_ptr<AdapterRegistry> registry_;
  std::unique_ptr<AdapterVersions> versions_;
  std::unique_ptr<AdapterPublisher> publisher_;
  std::unique_ptr<AdapterCache> cache_;
};

TEST_F(AdapterPublisherTest, PublishMakesLiveResidentAndDurable) {
  const absl::StatusOr<AdapterInfo> info = Publish("acme", "fr", Lora(1));
  ASSERT_TRUE(info.ok()) << info.status();
  EXPECT_EQ(info->id, (AdapterId{"acme", "fr", 1}));
  EXPECT_EQ(info->method, "LORA");
  EXPECT_EQ(info->num_parameters, 32);
  EXPECT_EQ(info->max_rank, 2);
  EXPECT_EQ(info->num_sites, 1);
  EXPECT_EQ(info->resident_bytes, kResidentBytes);
  EXPECT_EQ(cache_->state(info->digest), Residency::kResident);
  const absl::StatusOr<AdapterHandle> handle = registry_->Acquire("acme", {"fr"});
  ASSERT_TRUE(handle.ok()) << handle.status();
  EXPECT_EQ((*handle)->digest, info->digest);
  EXPECT_THAT(*store_->List(), SizeIs(1));
}

TEST_F(AdapterPublisherTest, RestartServesTheSameVersions) {
  ASSERT_TRUE(Publish("acme", "fr", Lora(1)).ok());
  ASSERT_TRUE(Publish("acme", "fr", Lora(2)).ok());
  ASSERT_TRUE(Publish("bmce", "fr", Lora(3)).ok());
  Restart();
  EXPECT_THAT(LiveIds("acme"), ElementsAre("acme/fr@1", "acme/fr@2"));
  EXPECT_THAT(LiveIds("bmce"), ElementsAre("bmce/fr@1"));
  EXPECT_EQ(cache_->stats().num_resident, 0);  // tensors wait until somebody asks
  EXPECT_EQ(*LoadedValue(*registry_->Acquire("acme", {"fr"})), 2);
  EXPECT_EQ(*LoadedValue(*registry_->Acquire("acme", {"fr", 1})), 1);
}

TEST_F(AdapterPublisherTest, SameBytesGiveTheSameVersion) {
  ASSERT_TRUE(Publish("acme", "fr", Lora(1)).ok());
  const absl::StatusOr<AdapterInfo> again = Publish("acme", "fr", Lora(1));
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->id.version, 1);
  EXPECT_THAT(LiveIds("acme"), SizeIs(1));
}

TEST_F(AdapterPublisherTest, AnnouncedDigestMustMatch) {
  const absl::StatusOr<AdapterInfo> info = Publish("acme", "fr", Lora(1));
  ASSERT_TRUE(info.ok()) << info.status();
  const absl::Status wrong = Publish("acme", "de", Lora(2), info->digest).status();
  EXPECT_TRUE(absl::IsDataLoss(wrong)) << wrong;
  EXPECT_THAT(std::string(wrong.message()), HasSubstr(info->digest));
  EXPECT_THAT(LiveIds("acme"), SizeIs(1));
  EXPECT_TRUE(Publish("acme", "de", Lora(1), info->digest).ok());
  EXPECT_TRUE(Publish("acme", "it", Lora(1), absl::AsciiStrToUpper(info->digest)).ok());
}

TEST_F(AdapterPublisherTest, WhatDoesNotParseIsNowhere) {
  FileTexts files = Lora(1);
  files["adapter_model.safetensors"].pop_back();
  EXPECT_TRUE(absl::IsInvalidArgument(Publish("acme", "fr", files).status()));
  EXPECT_THAT(LiveIds("acme"), IsEmpty());
  EXPECT_THAT(*store_->List(), IsEmpty());
  EXPECT_EQ(CountEntries(blobs()), 0);
  EXPECT_EQ(CountEntries(tmp()), 0);
  EXPECT_EQ(cache_->stats().num_resident, 0);
}

TEST_F(AdapterPublisherTest, WhatDoesNotFitTheBaseLeavesTheServedVersion) {
  ASSERT_TRUE(Publish("acme", "fr", Lora(1)).ok());
  const absl::Status status = Publish("acme", "fr", Lora(2, /*in=*/16)).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  EXPECT_EQ((*registry_->Acquire("acme", {"fr"})).id().version, 1);
  EXPECT_THAT(*store_->List(), SizeIs(1));
}

TEST_F(AdapterPublisherTest, CandidateIsResidentAndNowhereElse) {
  absl::StatusOr<std::unique_ptr<StagedUpload>> upload = publisher_->BeginUpload();
  ASSERT_TRUE(upload.ok());
  for (const auto& [file_name, text] : Lora(3)) {
    ASSERT_TRUE((*upload)->Append(file_name, AsBytes(text)).ok());
  }
  absl::StatusOr<AdapterCandidate> candidate =
      publisher_->Prepare("acme", "fr", *std::move(upload), "");
  ASSERT_TRUE(candidate.ok()) << candidate.status();
  const std::string digest = candidate->handle()->digest;
  EXPECT_EQ(candidate->handle().id(), (AdapterId{"acme", "fr", 0}));
  EXPECT_EQ(*LoadedValue(candidate->handle()), 3);
  EXPECT_TRUE(absl::IsNotFound(registry_->Acquire("acme", {"fr"}).status()));
  EXPECT_THAT(*store_->List(), IsEmpty());
  publisher_->Reject(*std::move(candidate));
  EXPECT_EQ(cache_->state(digest), Residency::kCold);
  EXPECT_EQ(CountEntries(tmp()), 0);
}

TEST_F(AdapterPublisherTest, AcceptanceIsKeptWithTheVersion) {
  ASSERT_TRUE(Publish("acme", "fr", Lora(1)).ok());
  Restart();
  EXPECT_EQ((*registry_->Acquire("acme", {"fr"}))->acceptance, kReport);
}

TEST_F(AdapterPublisherTest, BadNamesAreRefused) {
  EXPECT_TRUE(absl::IsInvalidArgument(Publish("acme", "../fr", Lora(1)).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(Publish("", "fr", Lora(1)).status()));
}

TEST_F(AdapterPublisherTest, AdapterThatCanNeverBeResidentIsRefused) {
  Restart(/*cache_bytes=*/kResidentBytes - 1);
  const absl::Status status = Publish("acme", "fr", Lora(1)).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  EXPECT_THAT(*store_->List(), IsEmpty());
}

TEST_F(AdapterPublisherTest, TenantsLimitHoldsAgainstConcurrentUploads) {
  Restart(/*cache_bytes=*/1 << 20, /*max_adapters=*/3);
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([this, t] {
      Publish("acme", absl::StrCat("a", t), Lora(static_cast<float>(t))).IgnoreError();
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_THAT(LiveIds("acme"), SizeIs(3));
  EXPECT_THAT(*store_->List(), SizeIs(3));
}

TEST_F(AdapterPublisherTest, ConcurrentUploadsOfOneNameAllSucceed) {
  constexpr int kThreads = 8;
  std::vector<absl::StatusOr<AdapterInfo>> results(kThreads, absl::UnknownError("not run"));
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back(
        [this, t, &results] { results[t] = Publish("acme", "fr", Lora(static_cast<float>(t))); });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  std::set<int64_t> versions;
  for (const absl::StatusOr<AdapterInfo>& result : results) {
    ASSERT_TRUE(result.ok()) << result.status();
    versions.insert(result->id.version);
  }
  EXPECT_THAT(versions, SizeIs(kThreads));
  EXPECT_THAT(LiveIds("acme"), SizeIs(kThreads));
  EXPECT_EQ((*registry_->Acquire("acme", {"fr"})).id().version, kThreads);
}

TEST_F(AdapterPublisherTest, ConcurrentEqualUploadsGiveOneVersion) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([this] {
      const absl::StatusOr<AdapterInfo> info = Publish("acme", "fr", Lora(1));
      ASSERT_TRUE(info.ok()) << info.status();
      EXPECT_EQ(info->id.version, 1);
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_THAT(LiveIds("acme"), ElementsAre("acme/fr@1"));
}

TEST_F(AdapterPublisherTest, DeleteOfOneVersionFallsBack) {
  ASSERT_TRUE(Publish("acme", "fr", Lora(1)).ok());
  ASSERT_TRUE(Publish("acme", "fr", Lora(2)).ok());
  ASSERT_TRUE(Delete("acme", {"fr", 2}).ok());
  EXPECT_THAT(LiveIds("acme"), ElementsAre("acme/fr@1"));
  Restart();
  EXPECT_THAT(LiveIds("acme"), ElementsAre("acme/fr@1"));
}

TEST_F(AdapterPublisherTest, DeleteOfNameTakesAllItsVersions) {
  ASSERT_TRUE(Publish("acme", "fr", Lora(1)).ok());
  ASSERT_TRUE(Publish("acme", "fr", Lora(2)).ok());
  ASSERT_TRUE(Publish("acme", "de", Lora(1)).ok());
  ASSERT_TRUE(Delete("acme", {"fr"}).ok());
  EXPECT_THAT(LiveIds("acme"), ElementsAre("acme/de@1"));
  EXPECT_THAT(*store_->List(), SizeIs(1));
}

TEST_F(AdapterPublisherTest, DeleteOfOtherTenantsAdapterIsNotFound) {
  ASSERT_TRUE(Publish("acme", "fr", Lora(1)).ok());
  const absl::Status status = Delete("bmce", {"fr"});
  EXPECT_TRUE(absl::IsNotFound(status)) << status;
  EXPECT_EQ(status, Delete("cmce", {"fr"}));
  EXPECT_THAT(LiveIds("acme"), SizeIs(1));
}

TEST_F(AdapterPublisherTest, RequestThatHoldsADeletedColdVersionStillLoadsIt) {
  ASSERT_TRUE(Publish("acme", "fr", Lora(7)).ok());
  Restart();  // nothing is resident
  const absl::StatusOr<AdapterHandle> handle = registry_->Acquire("acme", {"fr"});
  ASSERT_TRUE(handle.ok()) << handle.status();
  ASSERT_TRUE(Delete("acme", {"fr"}).ok());
  EXPECT_EQ(CountEntries(blobs()), 0);
  const absl::StatusOr<float> value = LoadedValue(*handle);
  ASSERT_TRUE(value.ok()) << value.status();
  EXPECT_EQ(*value, 7);
}

TEST_F(AdapterPublisherTest, DeletedVersionThatNobodyHoldsIsGone) {
  const absl::StatusOr<AdapterInfo> info = Publish("acme", "fr", Lora(7));
  ASSERT_TRUE(info.ok()) << info.status();
  ASSERT_TRUE(Delete("acme", {"fr"}).ok());
  EXPECT_EQ(cache_->state(info->digest), Residency::kCold);
  EXPECT_TRUE(absl::IsNotFound(publisher_->Compile(*info).status()));
}

TEST_F(AdapterPublisherTest, DamagedVersionIsLeftOutAndOthersServe) {
  ASSERT_TRUE(Publish("acme", "bad", Lora(1)).ok());
  ASSERT_TRUE(Publish("acme", "good", Lora(2)).ok());
  std::filesystem::remove(BlobOf(Lora(1)["adapter_model.safetensors"]));
  Restart();
  EXPECT_THAT(LiveIds("acme"), ElementsAre("acme/good@1"));
  EXPECT_EQ(registry_->num_quarantined(), 1);
  // The same upload repairs it, and makes it live.
  const absl::StatusOr<AdapterInfo> repaired = Publish("acme", "bad", Lora(1));
  ASSERT_TRUE(repaired.ok()) << repaired.status();
  EXPECT_EQ(repaired->id.version, 1);
  EXPECT_THAT(LiveIds("acme"), ElementsAre("acme/bad@1", "acme/good@1"));
}

TEST_F(AdapterPublisherTest, RottenVersionFailsItsLoadAlone) {
  ASSERT_TRUE(Publish("acme", "bad", Lora(1)).ok());
  ASSERT_TRUE(Publish("acme", "good", Lora(2)).ok());
  std::string rotten = Lora(1)["adapter_model.safetensors"];
  const std::filesystem::path blob = BlobOf(rotten);
  rotten.back() ^= 1;
  Overwrite(blob, rotten);
  Restart();
  EXPECT_TRUE(absl::IsDataLoss(LoadedValue(*registry_->Acquire("acme", {"bad"})).status()));
  EXPECT_TRUE(absl::IsDataLoss(registry_->Acquire("acme", {"bad"}).status()));
  EXPECT_EQ(*LoadedValue(*registry_->Acquire("acme", {"good"})), 2);
}

TEST_F(AdapterPublisherTest, DamagedVersionCanBeDeleted) {
  ASSERT_TRUE(Publish("acme", "bad", Lora(1)).ok());
  std::filesystem::remove(BlobOf(Lora(1)["adapter_model.safetensors"]));
  Restart();
  EXPECT_TRUE(Delete("acme", {"bad"}).ok());
  EXPECT_THAT(*store_->List(), IsEmpty());
}

TEST_F(AdapterPublisherTest, PublishAndDeleteAgreeWithTheStoreAfterARace) {
  std::thread deleter([this] {
    for (int i = 0; i < 30; ++i) {
      Delete("acme", {"fr"}).IgnoreError();
    }
  });
  for (int i = 0; i < 30; ++i) {
    const absl::StatusOr<AdapterInfo> info = Publish("acme", "fr", Lora(static_cast<float>(i)));
    ASSERT_TRUE(info.ok()) << info.status();
  }
  deleter.join();
  std::vector<std::string> stored;
  const absl::StatusOr<std::vector<AdapterInfo>> list = store_->List();
  ASSERT_TRUE(list.ok()) << list.status();
  for (const AdapterInfo& info : *list) {
    stored.push_back(info.id.ToString());
  }
  EXPECT_EQ(LiveIds("acme"), stored);
}

}  // namespace
}  // namespace tenon
