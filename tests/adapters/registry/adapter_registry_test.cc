#include "adapters/registry/adapter_registry.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <optional>
#include <set>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "adapters/base/errors.h"

namespace tenon {
namespace {

AdapterInfo Info(absl::string_view tenant, absl::string_view name, int64_t version) {
  AdapterInfo info;
  info.id = {std::string(tenant), std::string(name), version};
  info.digest = absl::StrCat("digest-of-", info.id.ToString());
  return info;
}

// A name as a store would answer it. `latest` points to the highest version.
AdapterName Named(absl::string_view tenant, absl::string_view name,
                  const std::vector<int64_t>& versions, int64_t generation = 1) {
  AdapterName named;
  named.tenant = std::string(tenant);
  named.name = std::string(name);
  named.generation = generation;
  for (const int64_t version : versions) {
    named.versions[version] = std::make_shared<const AdapterInfo>(Info(tenant, name, version));
    named.pointers.aliases["latest"] = version;
  }
  return named;
}

// "fr@1 live latest" for each of the tenant's versions.
std::vector<std::string> Listing(const AdapterRegistry& registry, absl::string_view tenant) {
  std::vector<std::string> lines;
  for (const AdapterStatus& status : registry.List(tenant)) {
    lines.push_back(absl::StrCat(status.adapter.id().name, "@", status.adapter.id().version,
                                 status.state == AdapterState::kLive       ? " live"
                                 : status.state == AdapterState::kDraining ? " draining"
                                                                           : " quarantined",
                                 status.latest ? " latest" : ""));
  }
  return lines;
}

TEST(AdapterRegistryTest, BareNameMeansLatestWhateverIsHighest) {
  AdapterRegistry registry;
  AdapterName fr = Named("acme", "fr", {2, 9, 10});
  fr.pointers.aliases = {{"canary", 10}, {"latest", 9}};
  registry.Replace(fr);
  EXPECT_EQ(registry.Acquire("acme", {"fr"})->id().version, 9);
  EXPECT_EQ(registry.Acquire("acme", {"fr", 2})->id().version, 2);
  EXPECT_EQ(registry.Acquire("acme", {"fr", 0, "canary"})->id().version, 10);
  EXPECT_EQ(registry.num_live(), 3);
}

TEST(AdapterRegistryTest, RouteSaysWhatLedToTheVersion) {
  AdapterRegistry registry;
  AdapterName fr = Named("acme", "fr", {1, 2});
  fr.pointers.aliases = {{"canary", 2}, {"latest", 1}};
  registry.Replace(fr);
  const auto route = [&](const AdapterRef& ref, const std::string& key = "") {
    AdapterRoute taken;
    const AdapterHandle handle = *registry.Acquire("acme", ref, key, &taken);
    return absl::StrCat(handle.id().version, " ", taken.alias, taken.by_split ? " by split" : "");
  };
  EXPECT_EQ(route({"fr"}), "1 latest");
  EXPECT_EQ(route({"fr", 0, "canary"}), "2 canary");
  EXPECT_EQ(route({"fr", 2}), "2 ");
  fr.pointers.split = {{"canary", kSplitWhole / 2}};
  registry.Replace(fr);
  std::set<std::string> sides;
  for (int i = 0; i < 40; ++i) {
    sides.insert(route({"fr"}, absl::StrCat("user-", i)));
  }
  EXPECT_THAT(sides, testing::ElementsAre("1 latest by split", "2 canary by split"));
  EXPECT_EQ(route({"fr", 0, "latest"}), "1 latest") << "asked for by name, past the split";
  EXPECT_EQ(route({"fr", 1}), "1 ");
}

TEST(AdapterRegistryTest, RequestSeesOneVersion) {
  AdapterRegistry registry;
  registry.Replace(Named("acme", "fr", {1}));
  const AdapterHandle handle = *registry.Acquire("acme", {"fr"});
  registry.Replace(Named("acme", "fr", {1, 2}));
  registry.Replace(Named("acme", "fr", {2}));
  EXPECT_EQ(handle.id().version, 1);
  EXPECT_EQ(handle->digest, "digest-of-acme/fr@1");
  EXPECT_EQ(registry.Acquire("acme", {"fr"})->id().version, 2);
}

TEST(AdapterRegistryTest, NameWithoutLatestSaysWhatItHas) {
  AdapterRegistry registry;
  AdapterName fr = Named("acme", "fr", {1, 2});
  fr.pointers.aliases = {{"canary", 2}};
  registry.Replace(fr);
  const absl::Status bare = registry.Acquire("acme", {"fr"}).status();
  EXPECT_TRUE(absl::IsNotFound(bare)) << bare;
  EXPECT_EQ(bare.message(),
            "adapter \"fr\" is not live: fr has no alias \"latest\"; it has canary = 2");
  EXPECT_TRUE(registry.Acquire("acme", {"fr", 1}).ok());
}

TEST(AdapterRegistryTest, UnknownNamesVersionsAndTenantsReadAlike) {
  AdapterRegistry registry;
  registry.Replace(Named("acme", "fr", {1}));
  const absl::Status other_tenant = registry.Acquire("evil", {"fr", 1}).status();
  const absl::Status no_version = registry.Acquire("acme", {"fr", 2}).status();
  EXPECT_EQ(other_tenant.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(GetErrorDetail(other_tenant)->reason, "ADAPTER_NOT_FOUND");
  EXPECT_EQ(GetErrorDetail(other_tenant)->subject, "fr@1");
  EXPECT_EQ(other_tenant.message(), "adapter \"fr@1\" is not live");
  EXPECT_EQ(no_version.message(), "adapter \"fr@2\" is not live");
  EXPECT_EQ(registry.Acquire("acme", {"de"}).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(registry.Acquire("evil", {"fr", 0, "canary"}).status().message(),
            "adapter \"fr@canary\" is not live");
}

TEST(AdapterRegistryTest, VersionsThatStayKeepTheirIdentity) {
  AdapterRegistry registry;
  registry.Replace(Named("acme", "fr", {1}));
  const AdapterHandle before = *registry.Acquire("acme", {"fr", 1});
  registry.Replace(Named("acme", "fr", {1, 2}));
  EXPECT_EQ(&*before, &**registry.Acquire("acme", {"fr", 1}));
}

TEST(AdapterRegistryTest, ListShowsDrainingUntilTheLastHandleGoes) {
  AdapterRegistry registry;
  registry.Replace(Named("acme", "fr", {1, 2, 3}));
  registry.Replace(Named("acme", "de", {1}));
  registry.Replace(Named("other", "xx", {1}));
  std::optional<AdapterHandle> first = *registry.Acquire("acme", {"fr", 2});
  std::optional<AdapterHandle> second = first;
  registry.Replace(Named("acme", "fr", {1, 3}));
  const std::vector<std::string> draining = {"de@1 live latest", "fr@1 live", "fr@2 draining",
                                             "fr@3 live latest"};
  EXPECT_EQ(Listing(registry, "acme"), draining);
  first.reset();
  EXPECT_EQ(Listing(registry, "acme"), draining);
  second.reset();
  EXPECT_EQ(Listing(registry, "acme"),
            (std::vector<std::string>{"de@1 live latest", "fr@1 live", "fr@3 live latest"}));
  EXPECT_TRUE(Listing(registry, "nobody").empty());
}

TEST(AdapterRegistryTest, RetiredVersionWithoutHandlesIsFreedAtOnce) {
  AdapterRegistry registry;
  registry.Replace(Named("acme", "fr", {1}));
  registry.Replace(Named("acme", "fr", {}));
  EXPECT_TRUE(Listing(registry, "acme").empty());
  EXPECT_EQ(registry.num_live(), 0);
}

TEST(AdapterRegistryTest, QuarantinedVersionIsRefusedAloneUntilItIsRepaired) {
  AdapterRegistry registry;
  registry.Replace(Named("acme", "fr", {1, 2}));
  const AdapterHandle running = *registry.Acquire("acme", {"fr"});
  registry.Quarantine({"acme", "fr", 2}, "stored file x does not match its digest");
  registry.Quarantine({"acme", "fr", 7}, "is not there");
  const absl::Status refused = registry.Acquire("acme", {"fr"}).status();
  EXPECT_TRUE(absl::IsDataLoss(refused)) << refused;
  EXPECT_EQ(GetErrorDetail(refused)->reason, "ADAPTER_QUARANTINED");
  EXPECT_TRUE(registry.Acquire("acme", {"fr", 1}).ok());
  EXPECT_EQ(running.id().version, 2);
  EXPECT_EQ(registry.num_live(), 1);
  EXPECT_EQ(registry.num_quarantined(), 1);
  EXPECT_EQ(Listing(registry, "acme"),
            (std::vector<std::string>{"fr@1 live", "fr@2 quarantined latest"}));
  registry.Replace(Named("acme", "fr", {1, 2}));  // what a repairing upload does
  EXPECT_TRUE(registry.Acquire("acme", {"fr"}).ok());
  EXPECT_EQ(registry.num_quarantined(), 0);
}

TEST(AdapterRegistryTest, SplitHoldsForTheBareNameAlone) {
  AdapterRegistry registry;
  AdapterName fr = Named("acme", "fr", {1, 2});
  fr.pointers.aliases = {{"canary", 2}, {"latest", 1}};
  fr.pointers.split = {{"canary", 5000}};
  registry.Replace(fr);
  int on_canary = 0;
  for (int i = 0; i < 1000; ++i) {
    const std::string key = absl::StrCat("user-", i);
    const int64_t version = registry.Acquire("acme", {"fr"}, key)->id().version;
    EXPECT_EQ(registry.Acquire("acme", {"fr"}, key)->id().version, version) << "a caller stays";
    EXPECT_EQ(registry.Acquire("acme", {"fr", 0, "latest"}, key)->id().version, 1);
    EXPECT_EQ(registry.Acquire("acme", {"fr", 2}, key)->id().version, 2);
    on_canary += version == 2;
  }
  EXPECT_GT(on_canary, 400);
  EXPECT_LT(on_canary, 600);
}

TEST(AdapterRegistryTest, GenerationIsTheTenantsAndOutlivesItsNames) {
  AdapterRegistry registry;
  registry.Replace(Named("acme", "fr", {1}, /*generation=*/4));
  registry.Replace(Named("acme", "de", {1}, /*generation=*/5));
  registry.Replace(Named("other", "xx", {1}, /*generation=*/1));
  EXPECT_EQ(registry.Set("acme").generation, 5);
  EXPECT_EQ(registry.Set("acme").names.size(), 2u);
  registry.Replace(Named("acme", "fr", {}, /*generation=*/6));
  registry.Replace(Named("acme", "de", {}, /*generation=*/7));
  EXPECT_EQ(registry.Set("acme").generation, 7);
  EXPECT_TRUE(registry.Set("acme").names.empty());
  EXPECT_EQ(registry.Set("other").generation, 1);
  EXPECT_EQ(registry.Set("nobody").generation, 0);
}

TEST(AdapterRegistryTest, SubscriberHearsItsTenantWhileItsClaimLives) {
  AdapterRegistry registry;
  int heard = 0;
  std::shared_ptr<void> claim = registry.Subscribe("acme", [&] { ++heard; });
  registry.Replace(Named("acme", "fr", {1}));
  registry.Replace(Named("other", "fr", {1}));
  EXPECT_EQ(heard, 1);
  registry.Quarantine({"acme", "fr", 1}, "damaged");
  EXPECT_EQ(heard, 2);
  claim.reset();
  registry.Replace(Named("acme", "fr", {1, 2}));
  EXPECT_EQ(heard, 2);
}

TEST(AdapterRegistryTest, SubscriberSeesTheChangeThatItHearsOf) {
  AdapterRegistry registry;
  int64_t seen = 0;
  const std::shared_ptr<void> claim =
      registry.Subscribe("acme", [&] { seen = registry.Acquire("acme", {"fr"})->id().version; });
  registry.Replace(Named("acme", "fr", {1, 2, 3}));
  EXPECT_EQ(seen, 3);
}

TEST(AdapterRegistryTest, PublishNeverWaitsForReaders) {
  AdapterRegistry registry;
  registry.Replace(Named("acme", "fr", {1}));
  std::vector<AdapterHandle> held;  // "ten-hour streams": handles and a listing, all kept
  for (int64_t version = 2; version <= 100; ++version) {
    held.push_back(*registry.Acquire("acme", {"fr"}));
    const std::vector<AdapterStatus> listing = registry.List("acme");
    registry.Replace(Named("acme", "fr", {version}));
  }
  EXPECT_EQ(registry.num_live(), 1);
  for (size_t i = 0; i < held.size(); ++i) {
    EXPECT_EQ(held[i].id().version, static_cast<int64_t>(i) + 1);
  }
}

// Publishes must stay cheap in a registry of the size that a large server has, and so must the
// publishing of all adapters at start.
TEST(AdapterRegistryTest, PublishCostsLittleAmongTenThousand) {
  AdapterRegistry registry;
  constexpr int kNames = 10'000;
  const absl::Time start = absl::Now();
  for (int i = 0; i < kNames; ++i) {
    registry.Replace(Named("acme", absl::StrCat("adapter-number-", i), {1}));
  }
  const absl::Duration each = (absl::Now() - start) / kNames;
  RecordProperty("publish_us", static_cast<int>(absl::ToInt64Microseconds(each)));
#if !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__) && defined(NDEBUG)
  EXPECT_LT(each, absl::Milliseconds(1));
#endif
  EXPECT_EQ(registry.num_live(), kNames);
  EXPECT_EQ(registry.List("acme").size(), static_cast<size_t>(kNames));
  EXPECT_EQ(registry.Acquire("acme", {"adapter-number-77"})->id().version, 1);
}

TEST(AdapterRegistryTest, ConcurrentReadersAlwaysFindALiveVersion) {
  AdapterRegistry registry;
  constexpr int64_t kSwaps = 300;
  registry.Replace(Named("acme", "fr", {1}));
  std::atomic<bool> stop = false;
  std::atomic<int64_t> misses = 0, backwards = 0, wrong = 0;
  std::vector<std::thread> readers;
  for (int i = 0; i < 4; ++i) {
    readers.emplace_back([&] {
      int64_t last = 0;
      while (!stop) {
        const auto handle = registry.Acquire("acme", {"fr"});
        misses += !handle.ok();
        if (handle.ok()) {
          backwards += handle->id().version < last;
          last = handle->id().version;
          wrong += (*handle)->digest != absl::StrCat("digest-of-acme/fr@", last);
        }
        int latest = 0;
        for (const AdapterStatus& status : registry.List("acme")) {
          latest += status.latest;
        }
        wrong += latest != 1;
      }
    });
  }
  std::atomic<int64_t> heard = 0;
  const std::shared_ptr<void> claim = registry.Subscribe("acme", [&] { ++heard; });
  std::thread neighbour([&] {
    int64_t version = 0;
    do {
      registry.Replace(Named("other", "de", {++version}));
      registry.Subscribe("acme", [] {});
    } while (!stop);
  });
  for (int64_t version = 2; version <= kSwaps; ++version) {
    registry.Replace(Named("acme", "fr", {version}));
  }
  stop = true;
  for (std::thread& reader : readers) {
    reader.join();
  }
  neighbour.join();
  EXPECT_EQ(misses, 0);
  EXPECT_EQ(backwards, 0);
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(heard, kSwaps - 1);
  EXPECT_EQ(registry.num_live(), 2);
  EXPECT_EQ(Listing(registry, "acme"),
            (std::vector<std::string>{absl::StrCat("fr@", kSwaps, " live latest")}));
}

}  // namespace
}  // namespace tenon
