#include "adapters/residency/adapter_cache.h"

#include <ATen/ops/zeros.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/blocking_counter.h"
#include "absl/synchronization/notification.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace tenon {
namespace {

using Compiled = std::shared_ptr<const CompiledAdapter>;

// An adapter of exactly `num_bytes` bytes, a multiple of eight.
Compiled MakeCompiled(int64_t num_bytes) {
  auto compiled = std::make_shared<CompiledAdapter>(1);
  SiteDelta delta;
  delta.low_rank.down = at::zeros({1, num_bytes / 8}, at::kFloat);
  delta.low_rank.up = at::zeros({num_bytes / 8, 1}, at::kFloat);
  compiled->set_delta(0, Site::kQ, std::move(delta));
  return compiled;
}

AdapterHandle Handle(const std::string& digest, int64_t resident_bytes = 0) {
  AdapterInfo info;
  info.id = AdapterId{"acme", digest, 1};
  info.digest = digest;
  info.resident_bytes = resident_bytes;
  return AdapterHandle(std::make_shared<const AdapterInfo>(std::move(info)));
}

// A cache of 100 units of 8 bytes whose loads the test scripts: how large each digest is, whether
// it fails, and when loading may go on.
class AdapterCacheTest : public testing::Test {
 protected:
  static constexpr int64_t kUnit = 8;
  static constexpr absl::Duration kBackoff = absl::Seconds(5);

  AdapterCacheTest() {
    AdapterCacheOptions options;
    options.failure_backoff = kBackoff;
    options.clock = [this] { return absl::FromUnixSeconds(now_s_); };
    cache_ = std::make_unique<AdapterCache>(
        100 * kUnit, [this](const AdapterInfo& info) { return Load(info); }, options);
  }

  absl::StatusOr<Compiled> Load(const AdapterInfo& info) ABSL_LOCKS_EXCLUDED(mutex_) {
    absl::MutexLock lock(&mutex_);
    ++num_loads_[info.digest];
    ++num_started_;
    mutex_.Await(absl::Condition(&gate_open_));
    if (failing_) {
      return absl::DataLossError(absl::StrCat("broken ", info.digest));
    }
    const auto found = sizes_.find(info.digest);
    return MakeCompiled((found == sizes_.end() ? 30 : found->second) * kUnit);
  }

  void SetGate(bool open) {
    absl::MutexLock lock(&mutex_);
    gate_open_ = open;
  }
  void SetFailing(bool failing) {
    absl::MutexLock lock(&mutex_);
    failing_ = failing;
  }
  void SetSize(const std::string& digest, int64_t units) {
    absl::MutexLock lock(&mutex_);
    sizes_[digest] = units;
  }
  void AwaitStarted(int num_loads) {
    const auto started = [this, num_loads]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
      return num_started_ >= num_loads;
    };
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(&started));
  }
  int num_loads(const std::string& digest) {
    absl::MutexLock lock(&mutex_);
    return num_loads_[digest];
  }

  // Prefetches and waits for the end of the load.
  void Load(const std::string& digest) {
    absl::Notification done;
    cache_->Prefetch(Handle(digest), [&done] { done.Notify(); });
    done.WaitForNotification();
  }

  absl::StatusOr<AdapterClaim> Claim(
      const std::vector<std::string>& digests, const std::function<void()>& wake = [] {}) {
    return cache_->Claim(Handles(digests), wake);
  }
  absl::StatusOr<AdapterClaim> ClaimFirst(const std::vector<std::string>& digests,
                                          absl::Duration waited) {
    return cache_->ClaimFirst(Handles(digests), waited, [] {});
  }
  // As the catalogue knows them: 30 units each.
  static std::vector<AdapterHandle> Handles(const std::vector<std::string>& digests) {
    std::vector<AdapterHandle> handles;
    for (const std::string& digest : digests) {
      handles.push_back(Handle(digest, 30 * kUnit));
    }
    return handles;
  }

  std::atomic<int64_t> now_s_ = 1'000;
  absl::Mutex mutex_;
  bool gate_open_ ABSL_GUARDED_BY(mutex_) = true;
  bool failing_ ABSL_GUARDED_BY(mutex_) = false;
  int num_started_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::flat_hash_map<std::string, int64_t> sizes_ ABSL_GUARDED_BY(mutex_);
  absl::flat_hash_map<std::string, int> num_loads_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<AdapterCache> cache_;
};

TEST_F(AdapterCacheTest, UnknownAdapterIsCold) {
  EXPECT_EQ(cache_->state("a"), Residency::kCold);
  EXPECT_TRUE(absl::IsUnavailable(cache_->Pin("a").status()));
}

TEST_F(AdapterCacheTest, PrefetchMakesResident) {
  Load("a");
  EXPECT_EQ(cache_->state("a"), Residency::kResident);
  const absl::StatusOr<Compiled> pin = cache_->Pin("a");
  ASSERT_TRUE(pin.ok()) << pin.status();
  EXPECT_EQ((*pin)->resident_bytes(), 30 * kUnit);
  const AdapterCacheStats stats = cache_->stats();
  EXPECT_EQ(stats.num_resident, 1);
  EXPECT_EQ(stats.resident_bytes, 30 * kUnit);
  EXPECT_EQ(stats.budget_bytes, 100 * kUnit);
  EXPECT_EQ(stats.loads, 1);
}

TEST_F(AdapterCacheTest, StateIsLoadingUntilTheLoadEnds) {
  SetGate(false);
  absl::Notification done;
  cache_->Prefetch(Handle("a"), [&done] { done.Notify(); });
  AwaitStarted(1);
  EXPECT_EQ(cache_->state("a"), Residency::kLoading);
  EXPECT_TRUE(absl::IsUnavailable(cache_->Pin("a").status()));
  SetGate(true);
  done.WaitForNotification();
  EXPECT_EQ(cache_->state("a"), Residency::kResident);
}

TEST_F(AdapterCacheTest, PrefetchOfResidentCallsBackAtOnce) {
  Load("a");
  bool called = false;
  cache_->Prefetch(Handle("a"), [&called] { called = true; });
  EXPECT_TRUE(called);
  EXPECT_EQ(num_loads("a"), 1);
  EXPECT_EQ(cache_->stats().hits, 1);
}

TEST_F(AdapterCacheTest, FiveHundredWaitersShareOneLoad) {
  constexpr int kThreads = 10;
  constexpr int kWaiters = 50;
  SetGate(false);
  std::vector<std::atomic<int>> calls(kThreads * kWaiters);
  absl::BlockingCounter all_called(kThreads * kWaiters);
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kWaiters; ++i) {
        cache_->Prefetch(Handle("a"), [&, index = t * kWaiters + i] {
          ++calls[index];
          all_called.DecrementCount();
        });
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  SetGate(true);
  all_called.Wait();
  EXPECT_THAT(calls, testing::Each(testing::ResultOf(
                         [](const std::atomic<int>& count) { return count.load(); }, 1)));
  EXPECT_EQ(num_loads("a"), 1);
}

TEST_F(AdapterCacheTest, LeastRecentlyUsedGoesFirst) {
  Load("a");
  Load("b");
  Load("c");  // 90 of 100 units
  ASSERT_TRUE(cache_->Pin("a").ok());
  Load("d");
  EXPECT_EQ(cache_->state("b"), Residency::kCold);
  EXPECT_EQ(cache_->state("a"), Residency::kResident);
  EXPECT_EQ(cache_->state("c"), Residency::kResident);
  EXPECT_EQ(cache_->state("d"), Residency::kResident);
  EXPECT_EQ(cache_->stats().evictions, 1);
  EXPECT_EQ(cache_->stats().resident_bytes, 90 * kUnit);
}

TEST_F(AdapterCacheTest, PrefetchOfResidentCountsAsUse) {
  Load("a");
  Load("b");
  Load("c");
  Load("a");
  Load("d");
  EXPECT_EQ(cache_->state("a"), Residency::kResident);
  EXPECT_EQ(cache_->state("b"), Residency::kCold);
}

TEST_F(AdapterCacheTest, LargeAdapterEvictsSeveral) {
  Load("a");
  Load("b");
  Load("c");
  SetSize("large", 80);
  Load("large");
  EXPECT_EQ(cache_->stats().num_resident, 1);
  EXPECT_EQ(cache_->stats().resident_bytes, 80 * kUnit);
}

TEST_F(AdapterCacheTest, PinnedAdaptersAreNotEvicted) {
  Load("a");
  const Compiled pin = *cache_->Pin("a");
  for (const char* digest : {"b", "c", "d", "e", "f"}) {
    Load(digest);
  }
  EXPECT_EQ(cache_->state("a"), Residency::kResident);
  EXPECT_EQ(*cache_->Pin("a"), pin);
}

TEST_F(AdapterCacheTest, PinsMayExceedTheBudgetAndOnlyThey) {
  std::vector<Compiled> pins;
  for (const char* digest : {"a", "b", "c", "d", "e"}) {
    Load(digest);
    pins.push_back(*cache_->Pin(digest));
  }
  EXPECT_EQ(cache_->stats().resident_bytes, 150 * kUnit);
  EXPECT_EQ(cache_->stats().evictions, 0);
  pins.clear();
  Load("f");
  EXPECT_LE(cache_->stats().resident_bytes, 100 * kUnit);
  EXPECT_EQ(cache_->state("f"), Residency::kResident);
}

TEST_F(AdapterCacheTest, NewcomerIsKeptWhileAllElseIsPinned) {
  SetSize("a", 90);
  Load("a");
  const Compiled pin = *cache_->Pin("a");
  Load("b");
  EXPECT_EQ(cache_->state("b"), Residency::kResident);
  Load("c");
  EXPECT_EQ(cache_->state("b"), Residency::kCold);
}

TEST_F(AdapterCacheTest, AdapterLargerThanTheBudgetFails) {
  SetSize("huge", 101);
  Load("a");
  Load("huge");
  EXPECT_EQ(cache_->state("huge"), Residency::kFailed);
  EXPECT_TRUE(absl::IsResourceExhausted(cache_->Pin("huge").status()));
  EXPECT_EQ(cache_->state("a"), Residency::kResident);
}

TEST_F(AdapterCacheTest, FailureIsGivenByPinAndNotRetriedWithinTheBackoff) {
  SetFailing(true);
  Load("a");
  EXPECT_EQ(cache_->state("a"), Residency::kFailed);
  EXPECT_EQ(cache_->Pin("a").status(), absl::DataLossError("broken a"));
  now_s_ += 4;
  Load("a");
  EXPECT_EQ(cache_->Pin("a").status(), absl::DataLossError("broken a"));
  EXPECT_EQ(num_loads("a"), 1);
  EXPECT_EQ(cache_->stats().failed_loads, 1);
}

TEST_F(AdapterCacheTest, FailureIsRetriedAfterTheBackoff) {
  SetFailing(true);
  Load("a");
  SetFailing(false);
  now_s_ += 5;
  EXPECT_EQ(cache_->state("a"), Residency::kCold);
  // Who saw kFailed a moment ago still gets the reason.
  EXPECT_EQ(cache_->Pin("a").status(), absl::DataLossError("broken a"));
  Load("a");
  EXPECT_EQ(cache_->state("a"), Residency::kResident);
  EXPECT_TRUE(cache_->Pin("a").ok());
  EXPECT_EQ(num_loads("a"), 2);
}

TEST_F(AdapterCacheTest, FailureOfOneDoesNotTouchOthers) {
  Load("a");
  SetFailing(true);
  Load("b");
  EXPECT_TRUE(cache_->Pin("a").ok());
}

TEST_F(AdapterCacheTest, InsertMakesResidentWithoutALoad) {
  cache_->Insert("a", MakeCompiled(10 * kUnit));
  Load("a");
  EXPECT_EQ(num_loads("a"), 0);
  EXPECT_TRUE(cache_->Pin("a").ok());
}

TEST_F(AdapterCacheTest, InsertTwiceKeepsTheFirst) {
  const Compiled first = MakeCompiled(10 * kUnit);
  cache_->Insert("a", first);
  cache_->Insert("a", MakeCompiled(10 * kUnit));
  EXPECT_EQ(*cache_->Pin("a"), first);
  EXPECT_EQ(cache_->stats().resident_bytes, 10 * kUnit);
}

TEST_F(AdapterCacheTest, InsertBeyondTheBudgetIsIgnored) {
  Load("a");
  cache_->Insert("huge", MakeCompiled(101 * kUnit));
  EXPECT_EQ(cache_->state("huge"), Residency::kCold);
  EXPECT_EQ(cache_->state("a"), Residency::kResident);
}

TEST_F(AdapterCacheTest, InsertDuringALoadTellsItsWaitersOnce) {
  SetGate(false);
  std::atomic<int> calls = 0;
  cache_->Prefetch(Handle("a"), [&calls] { ++calls; });
  AwaitStarted(1);
  cache_->Insert("a", MakeCompiled(10 * kUnit));
  EXPECT_EQ(calls, 1);
  SetGate(true);
  Load("b");  // queued behind the first load, which has ended when this one has
  EXPECT_EQ(calls, 1);
  EXPECT_EQ((*cache_->Pin("a"))->resident_bytes(), 10 * kUnit);
}

TEST_F(AdapterCacheTest, InsertHealsAFailure) {
  SetFailing(true);
  Load("a");
  cache_->Insert("a", MakeCompiled(10 * kUnit));
  EXPECT_TRUE(cache_->Pin("a").ok());
}

TEST_F(AdapterCacheTest, EvictForgetsButPinsLive) {
  Load("a");
  const Compiled pin = *cache_->Pin("a");
  cache_->Evict("a");
  EXPECT_EQ(cache_->state("a"), Residency::kCold);
  EXPECT_EQ(cache_->stats().resident_bytes, 0);
  EXPECT_EQ(pin->resident_bytes(), 30 * kUnit);
  cache_->Evict("a");  // nothing left to forget
}

TEST_F(AdapterCacheTest, EvictForgetsAFailure) {
  SetFailing(true);
  Load("a");
  SetFailing(false);
  cache_->Evict("a");
  EXPECT_EQ(cache_->state("a"), Residency::kCold);
  Load("a");
  EXPECT_TRUE(cache_->Pin("a").ok());
}

TEST_F(AdapterCacheTest, EvictDuringALoadLetsItFinish) {
  SetGate(false);
  absl::Notification done;
  cache_->Prefetch(Handle("a"), [&done] { done.Notify(); });
  AwaitStarted(1);
  cache_->Evict("a");
  SetGate(true);
  done.WaitForNotification();
  EXPECT_EQ(cache_->state("a"), Residency::kResident);
}

TEST_F(AdapterCacheTest, CallbackMayUseTheCache) {
  absl::Notification done;
  cache_->Prefetch(Handle("a"), [&] {
    EXPECT_TRUE(cache_->Pin("a").ok());
    cache_->Prefetch(Handle("b"), [&done] { done.Notify(); });
  });
  done.WaitForNotification();
  EXPECT_EQ(cache_->state("b"), Residency::kResident);
}

TEST_F(AdapterCacheTest, DestructionWaitsForTheLoadAndDropsTheRest) {
  SetGate(false);
  std::atomic<int> calls = 0;
  cache_->Prefetch(Handle("a"), [&calls] { ++calls; });
  cache_->Prefetch(Handle("b"), [&calls] { ++calls; });
  AwaitStarted(1);
  std::thread destroyer([this] { cache_.reset(); });
  SetGate(true);
  destroyer.join();
  // Whichever came first: no callback runs twice, and none after the destructor has returned.
  const int calls_at_end = calls;
  EXPECT_LE(calls_at_end, 2);
  EXPECT_EQ(cache_, nullptr);
}

// --- claims ---

TEST_F(AdapterCacheTest, ClaimedAdapterIsLoadedAndNotEvicted) {
  absl::Notification loaded;
  absl::StatusOr<AdapterClaim> claim = Claim({"a"}, [&loaded] { loaded.Notify(); });
  ASSERT_TRUE(claim.ok() && *claim);
  loaded.WaitForNotification();
  for (const char* digest : {"b", "c", "d", "e"}) {
    Load(digest);
  }
  EXPECT_EQ(cache_->state("a"), Residency::kResident);
  EXPECT_EQ(cache_->Describe("a").num_claims, 1);
  claim->Release();
  for (const char* digest : {"b", "c", "d", "e"}) {
    Load(digest);
  }
  EXPECT_EQ(cache_->state("a"), Residency::kCold);
}

TEST_F(AdapterCacheTest, ClaimWithoutRoomStartsNoLoad) {
  std::vector<AdapterClaim> claims;
  for (const char* digest : {"a", "b", "c"}) {
    claims.push_back(*Claim({digest}));
    ASSERT_TRUE(claims.back());
  }
  EXPECT_FALSE(*Claim({"d"}));
  EXPECT_EQ(cache_->state("d"), Residency::kCold);
  claims.pop_back();
  EXPECT_TRUE(*Claim({"d"}));
  EXPECT_NE(cache_->state("d"), Residency::kCold);
}

TEST_F(AdapterCacheTest, ClaimThatNeverFitsIsAnError) {
  EXPECT_TRUE(absl::IsResourceExhausted(Claim({"a", "b", "c", "d"}).status()));
  EXPECT_EQ(cache_->stats().held_bytes, 0);
}

TEST_F(AdapterCacheTest, NewcomersTakeNoRoomWhileSomebodyWaits) {
  AdapterClaim hot = *Claim({"hot"});
  cache_->SetContended(true);
  EXPECT_FALSE(*Claim({"cold"}));
  EXPECT_TRUE(*Claim({"hot"}));
  cache_->SetContended(false);
  EXPECT_TRUE(*Claim({"cold"}));
}

TEST_F(AdapterCacheTest, WhoWaitsLongEnoughHasAnAdapterDrained) {
  AdapterClaim a = *Claim({"a"}), b = *Claim({"b"}), c = *Claim({"c"});
  AdapterClaim b_too = *Claim({"b"}), c_too = *Claim({"c"});
  cache_->SetContended(true);
  EXPECT_FALSE(*ClaimFirst({"d"}, absl::Milliseconds(199)));
  EXPECT_TRUE(*Claim({"a"})) << "no drain before its time";
  EXPECT_FALSE(*ClaimFirst({"d"}, absl::Milliseconds(200)));
  EXPECT_FALSE(*Claim({"a"})) << "drained";
  EXPECT_TRUE(*Claim({"b"}));
  a.Release();
  EXPECT_TRUE(*ClaimFirst({"d"}, absl::Milliseconds(201)));
}

TEST_F(AdapterCacheTest, EvictOfAClaimedAdapterWaitsForTheClaim) {
  absl::Notification loaded;
  AdapterClaim claim = *Claim({"a"}, [&loaded] { loaded.Notify(); });
  loaded.WaitForNotification();
  cache_->Evict("a");
  EXPECT_EQ(cache_->state("a"), Residency::kResident);
  claim.Release();
  EXPECT_EQ(cache_->state("a"), Residency::kCold);
}

TEST_F(AdapterCacheTest, MovedClaimIsReleasedOnce) {
  AdapterClaim one = *Claim({"a"});
  AdapterClaim two = std::move(one);
  one.Release();  // NOLINT: a moved-from claim claims nothing
  EXPECT_EQ(cache_->Describe("a").num_claims, 1);
  two = AdapterClaim();
  EXPECT_EQ(cache_->Describe("a").num_claims, 0);
  EXPECT_EQ(cache_->stats().held_bytes, 0);
}

// --- pins ---

TEST_F(AdapterCacheTest, PinnedAdapterOutlivesAnyLoad) {
  absl::Notification loaded;
  ASSERT_TRUE(cache_->PinResident(Handle("a", 30 * kUnit), [&loaded] { loaded.Notify(); }).ok());
  loaded.WaitForNotification();
  for (const char* digest : {"b", "c", "d", "e"}) {
    Load(digest);
  }
  EXPECT_EQ(cache_->state("a"), Residency::kResident);
  EXPECT_TRUE(cache_->Describe("a").pinned);
  EXPECT_EQ(cache_->stats().pinned_bytes, 30 * kUnit);
  EXPECT_TRUE(cache_->Unpin("a"));
  EXPECT_FALSE(cache_->Unpin("a"));
  for (const char* digest : {"b", "c", "d", "e"}) {
    Load(digest);
  }
  EXPECT_EQ(cache_->state("a"), Residency::kCold);
}

TEST_F(AdapterCacheTest, PinBeyondHalfOfTheBudgetIsRefused) {
  ASSERT_TRUE(cache_->PinResident(Handle("a", 30 * kUnit), [] {}).ok());
  bool called = false;
  const absl::Status refused =
      cache_->PinResident(Handle("b", 30 * kUnit), [&called] { called = true; });
  EXPECT_TRUE(absl::IsResourceExhausted(refused));
  EXPECT_THAT(std::string(refused.message()), testing::HasSubstr("acme/b@1 needs 240 bytes"));
  EXPECT_FALSE(called);
  EXPECT_EQ(cache_->state("b"), Residency::kCold);
}

TEST_F(AdapterCacheTest, ForgottenAdapterIsUnpinnedAndTold) {
  std::vector<std::string> told;
  cache_->set_on_forget([&told](const std::string& digest) { told.push_back(digest); });
  absl::Notification loaded;
  ASSERT_TRUE(cache_->PinResident(Handle("a", 30 * kUnit), [&loaded] { loaded.Notify(); }).ok());
  loaded.WaitForNotification();
  cache_->Forget("a");
  EXPECT_EQ(cache_->state("a"), Residency::kCold);
  EXPECT_EQ(cache_->stats().pinned_bytes, 0);
  EXPECT_THAT(told, testing::ElementsAre("a"));
}

TEST_F(AdapterCacheTest, UploadDoesNotPushOutWhatIsHeld) {
  std::vector<AdapterClaim> claims;
  for (const char* digest : {"a", "b", "c"}) {
    claims.push_back(*Claim({digest}));
  }
  const Compiled accepted = MakeCompiled(30 * kUnit);  // its upload still works with it
  cache_->Insert("upload", accepted);
  Load("d");
  EXPECT_EQ(cache_->state("upload"), Residency::kResident);
  for (const char* digest : {"a", "b", "c"}) {
    EXPECT_NE(cache_->state(digest), Residency::kCold) << digest;
  }
  EXPECT_TRUE(cache_->Pin("upload").ok());
}

TEST_F(AdapterCacheTest, ChurnOfManyThreadsKeepsTheAccounts) {
  constexpr int kThreads = 4;
  constexpr int kRounds = 200;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([this, t] {
      for (int i = 0; i < kRounds; ++i) {
        const std::string digest = absl::StrCat((i * 7 + t) % 6);
        absl::Notification done;
        cache_->Prefetch(Handle(digest), [&done] { done.Notify(); });
        done.WaitForNotification();
        const absl::StatusOr<Compiled> pin = cache_->Pin(digest);
        if (pin.ok()) {
          EXPECT_EQ((*pin)->resident_bytes(), 30 * kUnit);
        }
        if (i % 11 == t) {
          cache_->Evict(digest);
        }
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  Load("last");  // with no pin left, the budget holds again
  const AdapterCacheStats stats = cache_->stats();
  EXPECT_LE(stats.resident_bytes, 100 * kUnit);
  EXPECT_EQ(stats.resident_bytes, stats.num_resident * 30 * kUnit);
}

}  // namespace
}  // namespace tenon
