// What a hundred teams times ten cost: 1 000 tenants with 10 keys each.
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

#include "absl/time/clock.h"
#include "tests/server/tenant/directory_fixture.h"

namespace tenon {
namespace {

constexpr int kTenants = 1000;
constexpr int kKeysEach = 10;

int64_t ResidentBytes() {
  std::ifstream statm("/proc/self/statm");
  int64_t size = 0, resident = 0;
  statm >> size >> resident;
  return resident * 4096;
}

absl::Duration CpuTime() {
  timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return absl::DurationFromTimespec(time);
}

class TenantScaleTest : public DirectoryTest {
 protected:
  // Of one authentication: CPU time, and the median of rounds, which a busy machine moves little.
  absl::Duration TimeOf(const std::vector<std::string>& keys) {
    constexpr int kRounds = 21, kCalls = 1000;
    std::vector<absl::Duration> rounds;
    size_t next = 0;
    for (int round = 0; round < kRounds; ++round) {
      const absl::Duration begin = CpuTime();
      for (int i = 0; i < kCalls; ++i) {
        next += 7919;  // prime to the number of keys: none is warm because the last one was
        EXPECT_TRUE(directory_->AuthenticateKey(keys[next % keys.size()]).ok());
      }
      rounds.push_back((CpuTime() - begin) / kCalls);
    }
    std::sort(rounds.begin(), rounds.end());
    return rounds[kRounds / 2];
  }
};

TEST_F(TenantScaleTest, TenThousandKeysCostLittleMemoryAndNoLatency) {
  const IssuedKey first = MakeOperator();
  const absl::Duration alone = TimeOf({first.text});
  // Straight into the database: the directory's own writes are durable one by one.
  directory_.reset();
  const ApiKeyHasher hasher = *ApiKeyHasher::Open(folder_ + "/pepper", DrawRandomBytes);
  std::vector<std::string> texts;
  {
    absl::StatusOr<TenantStore> store = TenantStore::Open(folder_ + "/tenants.db");
    ASSERT_TRUE(store.ok());
    for (int t = 0; t < kTenants; ++t) {
      const std::string tenant = absl::StrCat("tenant-", t);
      ASSERT_TRUE(store->PutTenant({tenant, TenantState::kActive, {}, now_}, {}).ok());
      std::vector<KeyRecord> records;
      for (int k = 0; k < kKeysEach; ++k) {
        const ApiKey key = ApiKey::Draw(DrawRandomBytes);
        texts.push_back(key.text);
        KeyRecord& record = records.emplace_back();
        record.id = key.id;
        record.tenant = tenant;
        record.digest = hasher.Digest(key.text);
        record.created = now_;
      }
      ASSERT_TRUE(store->PutKeys(records, {}).ok());
    }
  }
  const int64_t before = ResidentBytes();
  const absl::Time begin = absl::Now();
  Reopen();
  const absl::Duration load = absl::Now() - begin;
  const int64_t grown = ResidentBytes() - before;
  const absl::Duration crowded = TimeOf(texts);
  std::printf(
      "%d tenants, %zu keys: %.1f MB, opened in %.0f ms, one authentication %.2f us "
      "(a single key: %.2f us), ratio %.2f\n",
      kTenants, texts.size(), grown / 1e6, absl::ToDoubleMilliseconds(load),
      absl::ToDoubleMicroseconds(crowded), absl::ToDoubleMicroseconds(alone),
      absl::FDivDuration(crowded, alone));
  EXPECT_LT(grown, 100'000'000);
  EXPECT_LT(crowded, 4 * alone) << "a few cache misses, and nothing that grows with the number";
  EXPECT_LT(crowded, absl::Microseconds(200)) << "a thousandth of a short request";
}

}  // namespace
}  // namespace tenon
