#include "server/tenant/quota_book.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <optional>
#include <thread>
#include <vector>

#include "adapters/base/errors.h"

namespace tenon {
namespace {

class QuotaBookTest : public testing::Test {
 protected:
  ErrorDetail Refusal(absl::string_view tenant = "acme") {
    const auto ticket = book_.AdmitRequest(tenant);
    EXPECT_EQ(ticket.status().code(), absl::StatusCode::kResourceExhausted);
    return GetErrorDetail(ticket.status()).value_or(ErrorDetail());
  }
  void Spend(int64_t num_tokens) {
    auto ticket = book_.AdmitRequest("acme");
    ASSERT_TRUE(ticket.ok()) << ticket.status();
    ticket->Charge(num_tokens);
  }

  TenantLimits limits_;
  absl::Time now_ = absl::FromUnixSeconds(1'800'000'000);
  QuotaBook book_{
      [this](absl::string_view tenant) { return tenant == "acme" ? limits_ : TenantLimits(); },
      [this] { return now_; }};
};

TEST_F(QuotaBookTest, NoLimitIsNoLimit) {
  for (int i = 0; i < 1000; ++i) {
    Spend(1 << 20);
  }
}

TEST_F(QuotaBookTest, RequestRateIsExactOverTime) {
  limits_.requests_per_second = 10;
  int admitted = 0;
  for (int ms = 0; ms < 60'000; ms += 7) {  // asks 143 times a second
    admitted += book_.AdmitRequest("acme").ok();
    now_ += absl::Milliseconds(7);
  }
  EXPECT_NEAR(admitted, 10 + 600, 1) << "the burst, then ten a second";
}

TEST_F(QuotaBookTest, RetryTimeIsWhenItWillBeLetIn) {
  limits_.requests_per_second = 4;
  for (int i = 0; i < 4; ++i) {
    Spend(0);
  }
  const ErrorDetail refusal = Refusal();
  EXPECT_EQ(refusal.reason, "REQUEST_RATE");
  EXPECT_EQ(refusal.subject, "tenant:acme/requests_per_second");
  now_ += refusal.retry_after - absl::Milliseconds(2);
  Refusal();
  now_ += absl::Milliseconds(2);
  Spend(0);
}

TEST_F(QuotaBookTest, TokenRateIsExactOverTimeThoughCostsAreKnownLate) {
  limits_.tokens_per_minute = 6000;
  int64_t spent = 0;
  for (int s = 0; s < 3600; ++s) {
    if (auto ticket = book_.AdmitRequest("acme"); ticket.ok()) {
      ticket->Charge(977);
      spent += 977;
    }
    now_ += absl::Seconds(1);
  }
  EXPECT_NEAR(static_cast<double>(spent), 6000.0 * 61, 6000.0 * 0.61) << "within 1 %";
}

TEST_F(QuotaBookTest, TokenDebtIsWorkedOff) {
  limits_.tokens_per_minute = 60;
  Spend(60 + 30);
  const ErrorDetail refusal = Refusal();
  EXPECT_EQ(refusal.reason, "TOKEN_RATE");
  EXPECT_EQ(refusal.retry_after, absl::Seconds(31));
  now_ += absl::Seconds(31);
  Spend(1);
}

TEST_F(QuotaBookTest, ConcurrentRequestsEndWithTheirTickets) {
  limits_.concurrent_requests = 2;
  auto first = book_.AdmitRequest("acme");
  std::optional<RequestTicket> second = *book_.AdmitRequest("acme");
  EXPECT_EQ(Refusal().reason, "CONCURRENT_REQUESTS");
  second.reset();
  auto third = book_.AdmitRequest("acme");
  EXPECT_TRUE(third.ok());
  RequestTicket moved = *std::move(third);
  EXPECT_EQ(Refusal().reason, "CONCURRENT_REQUESTS") << "a moved ticket is held once";
  *first = RequestTicket();
  EXPECT_TRUE(book_.AdmitRequest("acme").ok());
}

TEST_F(QuotaBookTest, QueuedRequestsLeaveTheQueueWithTheirFirstToken) {
  limits_.queued_requests = 1;
  auto first = book_.AdmitRequest("acme");
  EXPECT_EQ(Refusal().reason, "QUEUED_REQUESTS");
  first->Start();
  first->Start();
  auto second = book_.AdmitRequest("acme");
  ASSERT_TRUE(second.ok());
  EXPECT_EQ(Refusal().reason, "QUEUED_REQUESTS") << "starting twice frees one place";
}

TEST_F(QuotaBookTest, RefusedRequestCostsNothing) {
  limits_.requests_per_second = 1;
  limits_.concurrent_requests = 1;
  {
    auto running = book_.AdmitRequest("acme");
    now_ += absl::Seconds(1);
    for (int i = 0; i < 100; ++i) {
      EXPECT_EQ(Refusal().reason, "CONCURRENT_REQUESTS");
    }
  }
  Spend(0);
}

TEST_F(QuotaBookTest, RetryTimeOfAFullTenantFollowsItsRequests) {
  limits_.concurrent_requests = 1;
  for (int i = 0; i < 100; ++i) {
    auto ticket = book_.AdmitRequest("acme");
    now_ += absl::Seconds(30);
  }
  auto running = book_.AdmitRequest("acme");
  EXPECT_NEAR(absl::ToDoubleSeconds(Refusal().retry_after), 30, 1);
}

TEST_F(QuotaBookTest, ChangedLimitHoldsAtOnce) {
  limits_.tokens_per_minute = 60;
  Spend(6000);
  Refusal();
  limits_.tokens_per_minute = 0;
  Spend(1);
  limits_.concurrent_requests = 1;
  auto running = book_.AdmitRequest("acme");
  EXPECT_EQ(Refusal().reason, "CONCURRENT_REQUESTS");
}

TEST_F(QuotaBookTest, TenantsDoNotShare) {
  limits_.concurrent_requests = 1;
  auto acme = book_.AdmitRequest("acme");
  auto globex = book_.AdmitRequest("globex");
  EXPECT_TRUE(globex.ok());
}

TEST_F(QuotaBookTest, ClockThatStepsBackFillsNothing) {
  limits_.requests_per_second = 1;
  Spend(0);
  now_ -= absl::Hours(1);
  Refusal();
}

TEST_F(QuotaBookTest, TokensOfARequestAreCapped) {
  limits_.max_tokens = 100;
  EXPECT_EQ(*book_.CapTokens("acme", 100, 1, 256), 100);
  EXPECT_EQ(*book_.CapTokens("acme", 0, 1, 256), 100) << "the default would be over it";
  EXPECT_EQ(*book_.CapTokens("acme", 0, 4, 256), 25);
  EXPECT_EQ(*book_.CapTokens("acme", 0, 1, 50), 0) << "the default stands";
  EXPECT_FALSE(book_.CapTokens("acme", 101, 1, 256).ok());
  EXPECT_FALSE(book_.CapTokens("acme", 60, 2, 256).ok()) << "samples count";
  EXPECT_EQ(*book_.CapTokens("globex", 1 << 20, 16, 256), 1 << 20);
}

TEST_F(QuotaBookTest, AdaptersAndBytesAreCapped) {
  limits_.adapters = 2;
  limits_.adapter_bytes = 100;
  EXPECT_TRUE(book_.CheckAdapters("acme", 1, 60, 40).ok());
  EXPECT_FALSE(book_.CheckAdapters("acme", 2, 0, 0).ok());
  const absl::Status status = book_.CheckAdapters("acme", 1, 60, 41);
  EXPECT_EQ(GetErrorDetail(status)->reason, "ADAPTER_BYTES");
  EXPECT_EQ(GetErrorDetail(status)->retry_after, absl::ZeroDuration()) << "waiting does not help";
}

TEST_F(QuotaBookTest, NeverMoreInFlightThanAllowedWhateverTheThreads) {
  limits_.concurrent_requests = 3;
  std::atomic<int> in_flight = 0, most = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 2000; ++i) {
        if (auto ticket = book_.AdmitRequest("acme"); ticket.ok()) {
          const int now = ++in_flight;
          int seen = most;
          while (now > seen && !most.compare_exchange_weak(seen, now)) {
          }
          --in_flight;
        }
      }
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
  EXPECT_LE(most, 3);
  EXPECT_GT(most, 0);
}

TEST_F(QuotaBookTest, DebtSurvivesARestart) {
  limits_.tokens_per_minute = 60;
  limits_.requests_per_second = 5;
  Spend(60 + 30);
  std::vector<BucketRecord> buckets = book_.TakeChangedBuckets();
  ASSERT_EQ(buckets.size(), 1u);
  EXPECT_TRUE(book_.TakeChangedBuckets().empty()) << "nothing has changed since";
  now_ += absl::Seconds(10);
  QuotaBook restarted([this](absl::string_view) { return limits_; }, [this] { return now_; });
  restarted.Restore(buckets);
  const auto refused = restarted.AdmitRequest("acme");
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(GetErrorDetail(refused.status())->retry_after, absl::Seconds(21))
      << "the ten seconds count";
  now_ += absl::Seconds(21);
  EXPECT_TRUE(restarted.AdmitRequest("acme").ok());
}

}  // namespace
}  // namespace tenon
