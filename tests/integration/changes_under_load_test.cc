// How soon a change of keys and limits holds while other tenants keep the server busy.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tests/integration/tenant_fixture.h"

namespace tenon {
namespace {

constexpr char kShort[] = R"(tokens { ids: [1, 2, 3] }
                             sampling { temperature: 0 }
                             stopping { max_tokens: 4 ignore_eos: true })";
constexpr int kRounds = 20;

class ChangesUnderLoadTest : public TenantServerTest {
 protected:
  void SetUp() override {
    StartWithTenants();
    for (int i = 0; i < 4; ++i) {
      load_.emplace_back([this] {
        while (!stop_) {
          served_ += GenerateAs("globex", kShort).ok();
        }
      });
    }
  }
  void TearDown() override {
    stop_ = true;
    for (std::thread& thread : load_) {
      thread.join();
    }
    EXPECT_GT(served_, 0) << "there was load";
  }

  IssuedKey NewKey() {
    v1::CreateKeyRequest request;
    request.set_tenant("acme");
    request.set_role("inference");
    v1::CreateKeyResponse response;
    EXPECT_TRUE(tenants_->CreateKey(As("operator").get(), request, &response).ok());
    IssuedKey key;
    key.record.id = response.key().id();
    key.text = response.secret();
    return key;
  }

  // From asking for a change to the first call that feels it: `holds` calls and says whether it
  // did.
  template <typename Change, typename Holds>
  absl::Duration Until(Change change, Holds holds) {
    const absl::Time begin = absl::Now();
    EXPECT_TRUE(change().ok());
    EXPECT_TRUE(holds()) << "the first call after the answer feels it";
    return absl::Now() - begin;
  }

  void Report(const char* what, std::vector<absl::Duration> times) {
    std::sort(times.begin(), times.end());
    std::printf(
        "%s: %zu times beside %d requests of another tenant, median %.1f ms, worst %.1f ms\n", what,
        times.size(), served_.load(), absl::ToDoubleMilliseconds(times[times.size() / 2]),
        absl::ToDoubleMilliseconds(times.back()));
    EXPECT_LT(times.back(), absl::Seconds(1));
  }

  std::atomic<bool> stop_ = false;
  std::atomic<int> served_ = 0;
  std::vector<std::thread> load_;
};

TEST_F(ChangesUnderLoadTest, RevocationIsInForceWithinASecond) {
  std::vector<absl::Duration> times;
  for (int i = 0; i < kRounds; ++i) {
    secrets_["fresh"] = NewKey();
    ASSERT_TRUE(GenerateAs("fresh", kShort).ok());
    times.push_back(Until(
        [&] {
          v1::RevokeKeyRequest request;
          request.set_id(key_id("fresh"));
          v1::RevokeKeyResponse response;
          return tenants_->RevokeKey(As("operator").get(), request, &response);
        },
        [&] { return ReasonOf(GenerateAs("fresh", kShort)) == "CREDENTIALS_REVOKED"; }));
  }
  Report("revoked", std::move(times));
}

TEST_F(ChangesUnderLoadTest, LimitIsInForceWithinASecond) {
  std::vector<absl::Duration> times;
  for (int i = 0; i < kRounds; ++i) {
    ASSERT_TRUE(SetLimits("acme", "").ok());
    ASSERT_TRUE(GenerateAs("inference", kShort).ok());
    times.push_back(
        Until([&] { return SetLimits("acme", "max_tokens: 3"); },
              [&] { return ReasonOf(GenerateAs("inference", kShort)) == "MAX_TOKENS"; }));
    times.push_back(Until([&] { return SetLimits("acme", ""); },
                          [&] { return GenerateAs("inference", kShort).ok(); }));
  }
  Report("limits changed", std::move(times));
}

TEST_F(ChangesUnderLoadTest, SuspensionIsInForceWithinASecond) {
  const auto set = [&](v1::TenantState state) {
    v1::SetTenantStateRequest request;
    request.set_name("acme");
    request.set_state(state);
    v1::SetTenantStateResponse response;
    return tenants_->SetTenantState(As("operator").get(), request, &response);
  };
  std::vector<absl::Duration> times;
  for (int i = 0; i < kRounds / 2; ++i) {
    times.push_back(
        Until([&] { return set(v1::TENANT_STATE_SUSPENDED); },
              [&] { return ReasonOf(GenerateAs("inference", kShort)) == "TENANT_SUSPENDED"; }));
    times.push_back(Until([&] { return set(v1::TENANT_STATE_ACTIVE); },
                          [&] { return GenerateAs("inference", kShort).ok(); }));
  }
  Report("suspended and back", std::move(times));
}

}  // namespace
}  // namespace tenon
