#include "adapters/kernels/low_rank.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <vector>

#include "tests/adapters/kernels/kernel_testing.h"

namespace tenon {
namespace {

constexpr at::ScalarType kTypes[] = {at::kFloat, at::kBFloat16};

class LowRankTest : public testing::TestWithParam<CpuIsa> {
 protected:
  LowRankTest() : isa_(GetParam()) {}

  LowRankDelta MakeDelta(int64_t rank, int64_t in, int64_t out, at::ScalarType dtype,
                         float scaling = 0.5f) {
    return LowRankDelta::Create(random_.Normal({rank, in}, dtype, 0.2f),
                                random_.Normal({out, rank}, dtype, 0.2f), scaling)
        .value();
  }

  LowRankDelta MakeDense(int64_t in, int64_t out, at::ScalarType dtype) {
    return LowRankDelta::CreateDense(random_.Normal({out, in}, dtype, 0.2f), -0.5f).value();
  }

  ScopedCpuIsa isa_;
  RandomTensors random_{41};
};

TEST_P(LowRankTest, MatchesReferenceOnRandomBatches) {
  for (int round = 0; round < 40; ++round) {
    for (const at::ScalarType dtype : kTypes) {
      const int64_t rows = random_.Between(1, 50), in = random_.Between(1, 150),
                    out = random_.Between(1, 300);
      SCOPED_TRACE(testing::Message()
                   << dtype << " rows " << rows << " in " << in << " out " << out);
      std::vector<LowRankDelta> deltas;
      for (int i = 0; i < 4; ++i) {
        deltas.push_back(MakeDelta(random_.Between(1, 40), in, out, dtype));
      }
      deltas.back() = MakeDense(in, out, dtype);
      std::vector<LowRankTerm> terms;
      for (int i = 0; i < 6; ++i) {  // may overlap, may be empty
        const int64_t begin = random_.Between(0, rows), end = random_.Between(begin, rows);
        terms.push_back({begin, end, &deltas[random_.Between(0, 3)], 0.25f * (i + 1)});
      }
      const at::Tensor x = random_.Normal({rows, in}, dtype);
      const at::Tensor y = random_.Normal({rows, out}, dtype), expected = y.clone();
      ApplyLowRank(x, terms, y);
      ApplyLowRankReference(x, terms, expected);
      EXPECT_LT(WorstError(y, expected), 4 * RoundingError(dtype));
    }
  }
}

TEST_P(LowRankTest, RowHasSameBitsInAnySegment) {
  for (const at::ScalarType dtype : kTypes) {
    for (const int64_t rank : {1, 8, 16, 33}) {
      const LowRankDelta delta = MakeDelta(rank, 75, 110, dtype);
      const LowRankDelta other = MakeDelta(4, 75, 110, dtype);
      const at::Tensor x = random_.Normal({64, 75}, dtype);
      const at::Tensor before = random_.Normal({64, 110}, dtype);
      const at::Tensor whole = before.clone();
      const LowRankTerm all{0, 64, &delta, 1.0f};
      ApplyLowRank(x, {&all, 1}, whole);
      for (int64_t rows = 1; rows <= 30; ++rows) {
        const at::Tensor part = before.clone();
        const LowRankTerm terms[] = {{0, 20, &other, 1.0f}, {20, 20 + rows, &delta, 1.0f}};
        ApplyLowRank(x, terms, part);
        EXPECT_TRUE(SameBits(part.narrow(0, 20, rows), whole.narrow(0, 20, rows)))
            << dtype << " rank " << rank << ", " << rows << " rows";
      }
    }
  }
}

// A product of several stacked layers with updates of their own: columns 0, 64 and 160 of 230.
TEST_P(LowRankTest, UpdateInAProductMatchesReference) {
  for (int round = 0; round < 20; ++round) {
    for (const at::ScalarType dtype : kTypes) {
      const int64_t rows = random_.Between(1, 90), in = random_.Between(1, 150);
      SCOPED_TRACE(testing::Message() << dtype << " rows " << rows << " in " << in);
      const at::Tensor weight = random_.Normal({230, in}, dtype, 0.2f);
      const PackedMatrix base = PackedMatrix::Pack({&weight, 1}).value();
      const int64_t columns[] = {0, 64, 160}, widths[] = {64, 96, 70};
      std::vector<LowRankDelta> deltas;
      for (int i = 0; i < 6; ++i) {
        deltas.push_back(i == 5 ? MakeDense(in, widths[i % 3], dtype)
                                : MakeDelta(random_.Between(1, 80), in, widths[i % 3], dtype));
      }
      std::vector<LowRankUpdate::Term> terms;
      for (size_t i = 0; i < 9; ++i) {  // may overlap, may be empty
        const int64_t begin = random_.Between(0, rows), end = random_.Between(begin, rows);
        terms.push_back(
            {{begin, end, &deltas[i % 6], 0.25f * static_cast<float>(i + 1)}, columns[i % 3]});
      }
      const at::Tensor x = random_.Normal({rows, in}, dtype);
      const at::Tensor y = at::empty({rows, 230}, x.options());
      const LowRankUpdate update(x, terms);
      base.Multiply(x, {}, y, update.updates());
      const at::Tensor expected = at::linear(x.to(at::kFloat), weight.to(at::kFloat));
      for (size_t i = 0; i < terms.size(); ++i) {
        const LowRankDelta& delta = *terms[i].term.delta;
        LowRankDelta wide;
        wide.up = delta.UpMatrix().to(at::kFloat);
        wide.down = delta.dense() ? at::Tensor() : delta.DownMatrix().to(at::kFloat);
        wide.scaling = delta.scaling;
        LowRankTerm term = terms[i].term;
        term.delta = &wide;
        ApplyLowRankReference(x.to(at::kFloat), {&term, 1},
                              expected.narrow(1, columns[i % 3], widths[i % 3]));
      }
      EXPECT_LT(WorstError(y, expected), RoundingError(dtype));
    }
  }
}

TEST_P(LowRankTest, UpdateInAProductHasSameBitsInAnySegmentAndSlice) {
  for (const at::ScalarType dtype : kTypes) {
    for (const int64_t rank : {1, 7, 16, 40, 300}) {
      const at::Tensor weight = random_.Normal({96, 75}, dtype);
      const PackedMatrix base = PackedMatrix::Pack({&weight, 1}).value();
      const LowRankDelta delta = MakeDelta(rank, 75, 96, dtype);
      const LowRankDelta other = MakeDelta(4, 75, 96, dtype);
      const at::Tensor x = random_.Normal({64, 75}, dtype);
      const at::Tensor whole = at::empty({64, 96}, x.options()), part = at::empty_like(whole);
      const LowRankUpdate::Term all = {{0, 64, &delta, 1.0f}, 0};
      base.Multiply(x, {}, whole, LowRankUpdate(x, {&all, 1}).updates());
      for (const int64_t rows : {1, 2, 11, 16, 17, 30}) {
        const LowRankUpdate::Term terms[] = {{{0, 20, &other, 1.0f}, 0},
                                             {{20, 20 + rows, &delta, 1.0f}, 0}};
        const LowRankUpdate update(x, terms);
        base.Multiply(x, {}, part, update.updates());
        EXPECT_TRUE(SameBits(part.narrow(0, 20, rows), whole.narrow(0, 20, rows)))
            << dtype << " rank " << rank << ", " << rows << " rows";
        base.Multiply(x.narrow(0, 20, rows), {}, part.narrow(0, 20, rows), update.updates(), 20);
        EXPECT_TRUE(SameBits(part.narrow(0, 20, rows), whole.narrow(0, 20, rows)))
            << dtype << " rank " << rank << ", " << rows << " rows as a slice";
      }
    }
  }
}

TEST_P(LowRankTest, RefusesAnUpdateThatDoesNotFitTheProduct) {
  const at::Tensor weight = random_.Normal({96, 8}, at::kFloat);
  const PackedMatrix base = PackedMatrix::Pack({&weight, 1}).value();
  const LowRankDelta delta = MakeDelta(2, 8, 64, at::kFloat);
  const at::Tensor x = random_.Normal({3, 8}, at::kFloat), y = at::empty({3, 96});
  for (const int64_t column : {16, 64}) {  // within a panel; beyond the last column
    const LowRankUpdate::Term term = {{0, 3, &delta, 1.0f}, column};
    const LowRankUpdate update(x, {&term, 1});
    EXPECT_ANY_THROW(base.Multiply(x, {}, y, update.updates())) << column;
  }
}

TEST_P(LowRankTest, UncoveredRowsAndColumnsKeepTheirBits) {
  for (const at::ScalarType dtype : kTypes) {
    const LowRankDelta delta = MakeDelta(5, 40, 37, dtype);
    const at::Tensor wide = random_.Normal({20, 90}, dtype), before = wide.clone();
    const at::Tensor x = random_.Normal({20, 40}, dtype);
    const LowRankTerm terms[] = {{3, 3, &delta, 1.0f}, {4, 9, &delta, 1.0f}};
    ApplyLowRank(x, terms, wide.narrow(1, 13, 37));
    EXPECT_TRUE(SameBits(wide.narrow(0, 0, 4), before.narrow(0, 0, 4)));
    EXPECT_TRUE(SameBits(wide.narrow(0, 9, 11), before.narrow(0, 9, 11)));
    EXPECT_TRUE(SameBits(wide.narrow(1, 0, 13), before.narrow(1, 0, 13)));
    EXPECT_TRUE(SameBits(wide.narrow(1, 50, 40), before.narrow(1, 50, 40)));
    EXPECT_FALSE(SameBits(wide.narrow(0, 4, 5), before.narrow(0, 4, 5)));
    const at::Tensor dense = before.narrow(1, 13, 37).contiguous();
    ApplyLowRank(x, terms, dense);
    EXPECT_TRUE(SameBits(wide.narrow(1, 13, 37), dense));
  }
}

TEST_P(LowRankTest, RowOfDenseDeltaHasSameBitsInAnySegment) {
  for (const at::ScalarType dtype : kTypes) {
    const LowRankDelta delta = MakeDense(75, 110, dtype);
    const at::Tensor x = random_.Normal({40, 75}, dtype);
    const at::Tensor before = random_.Normal({40, 110}, dtype), whole = before.clone();
    const LowRankTerm all{0, 40, &delta, 1.5f};
    ApplyLowRank(x, {&all, 1}, whole);
    for (const int64_t rows : {1, 3, 12, 31}) {
      const at::Tensor part = before.clone();
      const LowRankTerm term{5, 5 + rows, &delta, 1.5f};
      ApplyLowRank(x, {&term, 1}, part);
      EXPECT_TRUE(SameBits(part.narrow(0, 5, rows), whole.narrow(0, 5, rows))) << dtype;
      EXPECT_TRUE(SameBits(part.narrow(0, 0, 5), before.narrow(0, 0, 5)));
    }
  }
}

TEST_P(LowRankTest, PackingChangesNoBit) {
  for (const at::ScalarType dtype : kTypes) {
    for (const int64_t rank : {1, 2, 16, 17}) {
      const LowRankDelta packed = MakeDelta(rank, 30, 205, dtype);
      LowRankDelta plain = packed;
      plain.up = packed.UpMatrix();
      plain.packed_up = PackedMatrix();
      const at::Tensor x = random_.Normal({15, 30}, dtype);
      const at::Tensor a = random_.Normal({15, 205}, dtype), b = a.clone();
      const LowRankTerm packed_term{0, 15, &packed, 2.0f}, plain_term{0, 15, &plain, 2.0f};
      ApplyLowRank(x, {&packed_term, 1}, a);
      ApplyLowRank(x, {&plain_term, 1}, b);
      EXPECT_TRUE(SameBits(a, b)) << dtype << " rank " << rank;
    }
  }
}

TEST_P(LowRankTest, TermsOnOneRowAddUpInOrder) {
  for (const at::ScalarType dtype : kTypes) {
    const LowRankDelta first = MakeDelta(3, 20, 64, dtype), second = MakeDelta(6, 20, 64, dtype);
    const at::Tensor x = random_.Normal({2, 20}, dtype);
    const at::Tensor together = random_.Normal({2, 64}, dtype), apart = together.clone();
    const LowRankTerm terms[] = {{0, 2, &first, 0.3f}, {0, 2, &second, -1.7f}};
    ApplyLowRank(x, terms, together);
    ApplyLowRank(x, {&terms[0], 1}, apart);
    ApplyLowRank(x, {&terms[1], 1}, apart);
    EXPECT_TRUE(SameBits(together, apart)) << dtype;
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, LowRankTest, testing::ValuesIn(HostIsas()),
                         [](const auto& test) { return IsaName(test.param); });

TEST(LowRankDeltaTest, UpMatrixGivesBackWhatWasPacked) {
  RandomTensors random(3);
  for (const at::ScalarType dtype : kTypes) {
    for (const int64_t out : {1, 31, 32, 65}) {
      const at::Tensor up = random.Normal({out, 7}, dtype), down = random.Normal({7, 3}, dtype);
      EXPECT_TRUE(SameBits(LowRankDelta::Create(down, up, 1.0f)->UpMatrix(), up)) << out;
    }
  }
}

// The reference itself, against numbers worked out by hand.
TEST(ApplyLowRankReferenceTest, AddsScaledProduct) {
  const LowRankDelta delta{at::tensor(std::vector<float>{1, 2}).view({1, 2}),
                           at::tensor(std::vector<float>{3, 4, 5}).view({3, 1}), 0.5f};
  const at::Tensor x = at::tensor(std::vector<float>{1, 1, 2, -1}).view({2, 2});
  const at::Tensor y = at::full({2, 3}, 1.0f);
  const LowRankTerm term{0, 1, &delta, 4.0f};
  ApplyLowRankReference(x, {&term, 1}, y);
  // x . down = 3, times 4 * 0.5 = 6.
  EXPECT_TRUE(SameBits(y, at::tensor(std::vector<float>{19, 25, 31, 1, 1, 1}).view({2, 3})));
}

TEST(ApplyLowRankTest, ThrowsAndLeavesOutputOnMismatch) {
  const LowRankDelta good{at::full({2, 4}, 1.0f), at::full({6, 2}, 1.0f), 1.0f};
  const LowRankDelta wrong_in{at::full({2, 5}, 1.0f), at::full({6, 2}, 1.0f), 1.0f};
  const LowRankDelta wrong_out{at::full({2, 4}, 1.0f), at::full({7, 2}, 1.0f), 1.0f};
  const LowRankDelta wrong_rank{at::full({2, 4}, 1.0f), at::full({6, 3}, 1.0f), 1.0f};
  const LowRankDelta wrong_type{good.down.to(at::kBFloat16), good.up.to(at::kBFloat16), 1.0f};
  const at::Tensor x = at::full({3, 4}, 1.0f), y = at::zeros({3, 6});
  for (const LowRankDelta* bad : {&wrong_in, &wrong_out, &wrong_rank, &wrong_type}) {
    const LowRankTerm terms[] = {{0, 3, &good, 1.0f}, {0, 3, bad, 1.0f}};
    EXPECT_THROW(ApplyLowRank(x, terms, y), c10::Error);
  }
  const LowRankTerm beyond{1, 4, &good, 1.0f}, backwards{2, 1, &good, 1.0f};
  EXPECT_THROW(ApplyLowRank(x, {&beyond, 1}, y), c10::Error);
  EXPECT_THROW(ApplyLowRank(x, {&backwards, 1}, y), c10::Error);
  EXPECT_TRUE(SameBits(y, at::zeros({3, 6})));
}

TEST(LowRankDeltaTest, DenseHasNoDown) {
  const at::Tensor matrix = at::full({33, 5}, 2.0f);
  const LowRankDelta delta = LowRankDelta::CreateDense(matrix, 0.25f).value();
  EXPECT_TRUE(delta.dense());
  EXPECT_EQ(delta.in_features(), 5);
  EXPECT_EQ(delta.out_features(), 33);
  EXPECT_EQ(delta.nbytes(), 4 * (64 * 5));
  const at::Tensor x = at::full({1, 5}, 1.0f), y = at::zeros({1, 33});
  const LowRankTerm term{0, 1, &delta, 2.0f};
  ApplyLowRankReference(x, {&term, 1}, y);
  EXPECT_TRUE(SameBits(y, at::full({1, 33}, 5.0f)));
}

TEST(LowRankDeltaTest, CreateKeepsUpPackedOnlyAndCountsAllBytes) {
  const at::Tensor down = at::full({3, 8}, 1.0f), up = at::full({33, 3}, 2.0f);
  const LowRankDelta delta = LowRankDelta::Create(down, up, 0.25f).value();
  EXPECT_TRUE(delta.down.is_same(down));
  EXPECT_FALSE(delta.up.defined());
  EXPECT_TRUE(SameBits(delta.UpMatrix(), up));
  EXPECT_EQ(delta.rank(), 3);
  EXPECT_EQ(delta.nbytes(), 4 * (3 * 8 + 64 * 3));
  EXPECT_FALSE(LowRankDelta::Create(down, at::full({33, 4}, 2.0f), 1.0f).ok());
  EXPECT_FALSE(LowRankDelta::Create(down, up.to(at::kBFloat16), 1.0f).ok());
  EXPECT_FALSE(LowRankDelta::Create(down, at::Tensor(), 1.0f).ok());
}

}  // namespace
}  // namespace tenon
