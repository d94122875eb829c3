#include "server/kernels/collective.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/rand.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include <exception>
#include <memory>
#include <thread>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace tenon {
namespace {

constexpr absl::Duration kTimeout = absl::Seconds(30);

using Ranks = std::vector<std::unique_ptr<Collective>>;

Ranks Connect(int64_t size) {
  absl::StatusOr<Ranks> ranks = Collective::ConnectGloo(size, kTimeout);
  EXPECT_TRUE(ranks.ok()) << ranks.status();
  return ranks.ok() ? *std::move(ranks) : Ranks();
}

// Runs the function for all ranks at once.
template <typename Function>
void OnEachRank(const Ranks& ranks, Function function) {
  std::vector<std::thread> threads;
  for (const std::unique_ptr<Collective>& rank : ranks) {
    threads.emplace_back([&function, &rank] {
      const c10::InferenceMode inference_mode;
      function(*rank);
    });
  }
  for (std::thread& thread : threads) {
    thread.join();
  }
}

TEST(CollectiveTest, AllReduceSumsOverRanksOnEveryRank) {
  for (const int64_t size : {2, 3, 4}) {
    OnEachRank(Connect(size), [size](Collective& rank) {
      const at::Tensor y = at::full({3, 5}, static_cast<double>(rank.rank() + 1));
      rank.AllReduce(y);
      EXPECT_TRUE(at::equal(y, at::full({3, 5}, static_cast<double>(size * (size + 1)) / 2)));
    });
  }
}

// A library's ring would begin each row's sum at another rank when the call has other rows.
TEST(CollectiveTest, RowHasTheSameBitsWhateverElseIsReduced) {
  constexpr int64_t kSize = 4;
  std::vector<at::Tensor> parts, sums(kSize);
  for (int64_t rank = 0; rank < kSize; ++rank) {
    parts.push_back(at::rand({37, 64}));
  }
  OnEachRank(Connect(kSize), [&](Collective& rank) {
    const at::Tensor together = parts[rank.rank()].clone();
    rank.AllReduce(together);
    sums[rank.rank()] = together;
    for (int64_t row = 0; row < together.size(0); row += 9) {
      const at::Tensor alone = parts[rank.rank()].narrow(0, row, 1).clone();
      rank.AllReduce(alone);
      EXPECT_TRUE(at::equal(alone, together.narrow(0, row, 1))) << "row " << row;
    }
  });
  for (int64_t rank = 1; rank < kSize; ++rank) {
    EXPECT_TRUE(at::equal(sums[rank], sums[0])) << "rank " << rank;
  }
}

TEST(CollectiveTest, Bf16IsAddedInFp32AndRoundedOnce) {
  OnEachRank(Connect(4), [](Collective& rank) {
    // In bf16 1 + 2^-8 is 1, three times.
    const double part = rank.rank() == 0 ? 1.0 : 0x1p-8;
    const at::Tensor y = at::full({2, 2}, part, at::TensorOptions(at::kBFloat16));
    rank.AllReduce(y);
    const at::Tensor sum = at::full({2, 2}, 1.0 + 3 * 0x1p-8, at::TensorOptions(at::kBFloat16));
    EXPECT_TRUE(at::equal(y, sum));
  });
}

TEST(CollectiveTest, GatheredColumnsStandInTheOrderOfTheRanks) {
  OnEachRank(Connect(2), [](Collective& rank) {
    const at::Tensor all = at::arange(24).view({4, 6});
    const at::Tensor columns = all.narrow(1, rank.rank() * 3, 3).contiguous();
    EXPECT_TRUE(at::equal(rank.GatherColumns(columns), all));
  });
}

TEST(CollectiveTest, NoRowsAreNoCall) {
  const Ranks ranks = Connect(2);
  ranks[0]->AllReduce(at::empty({0, 8}));  // and rank 1 has not come
  EXPECT_EQ(ranks[0]->GatherColumns(at::empty({0, 8})).size(1), 16);
}

TEST(CollectiveTest, ClosedRankFailsTheOthersAtOnce) {
  const absl::Time begin = absl::Now();
  OnEachRank(Connect(2), [](Collective& rank) {
    if (rank.rank() == 1) {
      rank.Close();
      EXPECT_THROW(rank.AllReduce(at::rand({2, 2})), std::exception);
      return;
    }
    EXPECT_THROW(rank.AllReduce(at::rand({2, 2})), std::exception);
    EXPECT_TRUE(rank.broken());
  });
  EXPECT_LT(absl::Now() - begin, kTimeout / 2);
}

TEST(CollectiveTest, SilentRankFailsTheOthersAfterTheTimeout) {
  absl::StatusOr<Ranks> ranks = Collective::ConnectGloo(2, absl::Milliseconds(200));
  ASSERT_TRUE(ranks.ok()) << ranks.status();
  EXPECT_THROW((*ranks)[0]->AllReduce(at::rand({2, 2})), std::exception);
  EXPECT_TRUE((*ranks)[0]->broken());
}

}  // namespace
}  // namespace tenon
