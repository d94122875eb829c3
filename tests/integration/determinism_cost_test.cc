// What `deterministic: true` costs: the same load with and without it, side by side.
#include <algorithm>
#include <iostream>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "gtest/gtest.h"
#include "tests/integration/server_fixture.h"

namespace tenon {
namespace {

class DeterminismCostTest : public ServerTest {
 protected:
  static constexpr int kClients = 8;
  static constexpr int kRequestsOfAClient = 6;
  static constexpr int kRounds = 9;

  // One round: the seconds in which all clients have all their answers.
  double Run(bool deterministic) {
    const absl::Time begin = absl::Now();
    std::vector<std::thread> clients;
    for (int client = 0; client < kClients; ++client) {
      clients.emplace_back([this, client, deterministic] {
        for (int i = 0; i < kRequestsOfAClient; ++i) {
          const v1::GenerateOnceResponse response = Generate(absl::StrCat(
              "prompt: 'client ", client, "' adapter: '", client % 2 == 0 ? "" : "fr",
              "' sampling { temperature: 0 } stopping { max_tokens: 48 ignore_eos: true } "
              "deterministic: ",
              deterministic ? "true" : "false"));
          EXPECT_EQ(response.samples(0).finish().usage().completion_tokens(), 48);
        }
      });
    }
    for (std::thread& client : clients) {
      client.join();
    }
    return absl::ToDoubleSeconds(absl::Now() - begin);
  }
};

// Rounds alternate, so that what else the machine does falls on both; the median ratio counts.
TEST_F(DeterminismCostTest, OnACpuItCostsNothing) {
  Start();
  UploadTiny("all-linear", "fr");
  Run(false);
  Run(true);
  std::vector<double> ratios;
  for (int round = 0; round < kRounds; ++round) {
    const bool deterministic_first = round % 2 == 0;
    const double first = Run(deterministic_first), second = Run(!deterministic_first);
    ratios.push_back(deterministic_first ? first / second : second / first);
  }
  std::sort(ratios.begin(), ratios.end());
  const double median = ratios[kRounds / 2];
  std::cout << absl::StreamFormat(
      "deterministic requests take %.3f times as long as others (median of %d rounds, %.3f to "
      "%.3f)\n",
      median, kRounds, ratios.front(), ratios.back());
  EXPECT_LT(median, 1.25);
}

}  // namespace
}  // namespace tenon
