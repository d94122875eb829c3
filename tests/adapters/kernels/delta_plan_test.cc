// The CUDA kernels of deltas against the references; on the host, or on a GPU.
#include "adapters/kernels/delta_plan.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>

#include <memory>
#include <utility>
#include <vector>

#include "adapters/kernels/affine.h"
#include "tests/adapters/kernels/kernel_testing.h"
#include "tests/device/test_device.h"

namespace tenon {
namespace {

class DeltaPlanTest : public testing::TestWithParam<at::ScalarType> {
 protected:
  at::Tensor ToDevice(const at::Tensor& tensor) { return tensor.to(device_); }

  // A delta on the device; `deltas_` keeps it.
  const LowRankDelta* Delta(int64_t in, int64_t rank, int64_t out, float scaling) {
    const LowRankDelta delta =
        *LowRankDelta::Create(random_.Normal({rank, in}, GetParam(), 0.1f),
                              random_.Normal({out, rank}, GetParam()), scaling);
    deltas_.push_back(std::make_unique<LowRankDelta>(delta.OnDevice(device_)));
    return deltas_.back().get();
  }

  const LowRankDelta* DenseDelta(int64_t in, int64_t out, float scaling) {
    const LowRankDelta delta =
        *LowRankDelta::CreateDense(random_.Normal({out, in}, GetParam(), 0.1f), scaling);
    deltas_.push_back(std::make_unique<LowRankDelta>(delta.OnDevice(device_)));
    return deltas_.back().get();
  }

  // Puts the plan's tables on the device; `tables_` keeps them.
  void Upload(DeltaPlan& plan) {
    DeviceTables& tables = *tables_.emplace_back(std::make_unique<DeviceTables>(device_));
    plan.Stage(tables, device_);
    tables.Upload();
  }

  at::Tensor Vector(int64_t size) { return ToDevice(random_.Normal({size}, at::kFloat)); }

  static DeltaPlan::Term Term(int64_t begin, int64_t end, const LowRankDelta* delta, float weight,
                              int64_t column = 0) {
    return {begin, end, column, delta->out_features(), delta, {}, {}, weight};
  }

  // The affine parts and low-rank deltas of one term after another, in fp32 on the CPU.
  static void ApplyReference(const at::Tensor& x, std::span<const DeltaPlan::Term> terms,
                             const at::Tensor& y) {
    for (const DeltaPlan::Term& term : terms) {
      const auto cpu = [](const at::Tensor& t) { return t.defined() ? t.cpu() : t; };
      const AffinePart part = {cpu(term.gain), cpu(term.offset), term.weight};
      ApplyAffineReference(term.begin, term.end, {&part, 1}, y);
      if (term.low_rank != nullptr) {
        const LowRankDelta delta = term.low_rank->OnDevice(at::kCPU);
        const LowRankTerm low_rank = {term.begin, term.end, &delta, term.weight};
        ApplyLowRankReference(x, {&low_rank, 1}, y);
      }
    }
  }

  // What kernels and reference make of a product whose terms all begin at column 0.
  void ExpectReference(int64_t rows, int64_t in, int64_t out,
                       const std::vector<DeltaPlan::Term>& terms) {
    const at::Tensor x = ToDevice(random_.Normal({rows, in}, GetParam()));
    const at::Tensor before = random_.Normal({rows, out}, GetParam());
    const at::Tensor y = ToDevice(before), expected = before.to(at::kFloat, false, true);
    DeltaPlan plan;
    const size_t product = plan.Add(terms);
    Upload(plan);
    plan.Apply(product, x, y);
    ApplyReference(x.cpu().to(at::kFloat), terms, expected);
    EXPECT_LE(WorstError(y.cpu(), expected), 4 * RoundingError(GetParam()));
  }

  c10::InferenceMode mode_;
  at::Device device_ = KernelTestDevice().device;
  RandomTensors random_{7};
  std::vector<std::unique_ptr<LowRankDelta>> deltas_;
  std::vector<std::unique_ptr<DeviceTables>> tables_;
};

TEST_P(DeltaPlanTest, SegmentsOfExactRanksMatchTheReference) {
  // Ranks 1 to 70, rows beyond a group's, a segment of one row, columns that fill no panel.
  ExpectReference(
      31, 96, 83,
      {Term(0, 1, Delta(96, 1, 83, 0.5f), 1.0f), Term(1, 20, Delta(96, 70, 83, 2.0f), 0.7f),
       Term(23, 31, Delta(96, 16, 83, 1.0f), -1.0f)});
}

TEST_P(DeltaPlanTest, InputsThatAreNotAlignedMatchTheReference) {
  ExpectReference(9, 37, 40, {Term(2, 9, Delta(37, 8, 40, 1.0f), 1.0f)});
}

TEST_P(DeltaPlanTest, TermsOfTheSameRowsAddUp) {
  ExpectReference(
      12, 64, 64,
      {Term(0, 12, Delta(64, 4, 64, 1.0f), 0.5f), Term(0, 12, Delta(64, 9, 64, 0.3f), 1.0f),
       Term(0, 12, Delta(64, 2, 64, 1.0f), -2.0f)});
}

TEST_P(DeltaPlanTest, DenseDeltasMatchTheReference) {
  for (const auto& [in, out] : {std::pair(1, 1), std::pair(37, 83), std::pair(600, 40)}) {
    ExpectReference(
        19, in, out,
        {Term(0, 1, DenseDelta(in, out, 0.5f), 1.0f), Term(3, 3, DenseDelta(in, out, 1.0f), 1.0f),
         Term(3, 17, DenseDelta(in, out, 0.5f), -0.7f)});
  }
}

TEST_P(DeltaPlanTest, RandomSegmentsOfAllKindsMatchTheReference) {
  for (int round = 0; round < 25; ++round) {
    const int64_t in = random_.Between(1, 200), out = random_.Between(1, 150);
    std::vector<DeltaPlan::Term> terms;
    int64_t end = 0;
    for (int64_t segment = random_.Between(1, 4); segment > 0; --segment) {
      const int64_t begin = end + random_.Between(0, 2);
      end = begin + random_.Between(0, 19);  // a segment may be empty
      for (int64_t i = random_.Between(1, 3); i > 0; --i) {
        const LowRankDelta* const delta = random_.Between(0, 2) == 0
                                              ? DenseDelta(in, out, 0.4f)
                                              : Delta(in, random_.Between(1, 40), out, 0.4f);
        terms.push_back(Term(begin, end, delta, 0.2f * static_cast<float>(i)));
      }
    }
    ExpectReference(end + 1, in, out, terms);
  }
}

TEST_P(DeltaPlanTest, GainsAndOffsetsComeBeforeTheLowRankPart) {
  const DeltaPlan::Term both = {0, 5, 0, 40, Delta(32, 4, 40, 1.0f), Vector(40), Vector(40), 0.5f};
  const DeltaPlan::Term gain = {5, 9, 0, 40, nullptr, Vector(40), {}, 2.0f};
  const DeltaPlan::Term offset = {9, 20, 0, 40, nullptr, {}, Vector(40), -1.0f};
  ExpectReference(20, 32, 40, {both, gain, offset});
}

TEST_P(DeltaPlanTest, ProductWithoutLowRankPartsNeedsNoInput) {
  const DeltaPlan::Term gain = {1, 3, 0, 40, nullptr, Vector(40), {}, 1.0f};
  ExpectReference(4, 7, 40, {gain});
}

TEST_P(DeltaPlanTest, SitesOfOneProductHaveTheirColumnsAndOthersKeepTheirBits) {
  const at::Tensor x = ToDevice(random_.Normal({10, 64}, GetParam()));
  const at::Tensor before = random_.Normal({10, 200}, GetParam());
  const at::Tensor y = ToDevice(before);
  const std::vector<DeltaPlan::Term> terms = {Term(3, 7, Delta(64, 8, 64, 1.0f), 1.0f),
                                              Term(3, 7, Delta(64, 8, 32, 1.0f), 1.0f, 100)};
  DeltaPlan plan;
  const size_t product = plan.Add(terms);
  Upload(plan);
  plan.Apply(product, x, y);
  const at::Tensor expected = before.to(at::kFloat, false, true), input = x.cpu().to(at::kFloat);
  ApplyReference(input, {&terms[0], 1}, expected.narrow(1, 0, 64));
  ApplyReference(input, {&terms[1], 1}, expected.narrow(1, 100, 32));
  const at::Tensor after = y.cpu();
  EXPECT_LE(WorstError(after, expected), 4 * RoundingError(GetParam()));
  EXPECT_TRUE(SameBits(after.narrow(0, 0, 3), before.narrow(0, 0, 3)));
  EXPECT_TRUE(SameBits(after.narrow(1, 64, 36), before.narrow(1, 64, 36)));
  EXPECT_TRUE(SameBits(after.narrow(1, 132, 68), before.narrow(1, 132, 68)));
}

TEST_P(DeltaPlanTest, RowHasTheSameBitsAloneAndAmongOthers) {
  const LowRankDelta* const delta = Delta(64, 16, 48, 1.0f);
  const at::Tensor x = random_.Normal({20, 64}, GetParam());
  const at::Tensor before = random_.Normal({20, 48}, GetParam());
  const at::Tensor together = ToDevice(before), alone = ToDevice(before.narrow(0, 13, 1));
  const std::vector<DeltaPlan::Term> many = {Term(0, 9, Delta(64, 40, 48, 1.0f), 1.0f),
                                             Term(9, 20, delta, 1.0f)};
  const std::vector<DeltaPlan::Term> one = {Term(0, 1, delta, 1.0f)};
  DeltaPlan plan;
  const size_t all = plan.Add(many), single = plan.Add(one);
  Upload(plan);
  plan.Apply(all, ToDevice(x), together);
  plan.Apply(single, ToDevice(x.narrow(0, 13, 1)), alone);
  EXPECT_TRUE(SameBits(together.cpu().narrow(0, 13, 1), alone.cpu()));
}

// In bf16 with a multiple of 16 inputs: whole tiles, rows beyond them, several terms of other
// ranks.
TEST_P(DeltaPlanTest, LongSegmentsMatchTheReference) {
  for (const int64_t in : {16, 80, 208}) {
    ExpectReference(
        170, in, 40,
        {Term(0, 16, Delta(in, 8, 40, 1.0f), 1.0f),
         {16, 150, 0, 40, nullptr, Vector(40), {}, 0.5f},  // a gain comes before low-rank parts
         Term(16, 150, Delta(in, 17, 40, 0.5f), 0.7f),
         Term(16, 150, Delta(in, 40, 40, 0.5f), 1.0f),
         Term(151, 170, Delta(in, 1, 40, 1.0f), -1.0f)});
  }
  // A dense delta beside it keeps a segment from tensor cores.
  ExpectReference(
      64, 48, 40,
      {Term(0, 64, Delta(48, 8, 40, 1.0f), 1.0f), Term(0, 64, DenseDelta(48, 40, 0.5f), 1.0f)});
}

// A frame that has room for everything below.
TEST_P(DeltaPlanTest, FramedProductsHaveTheSameBits) {
  const auto scratch = at::empty({100000}, at::TensorOptions(at::kFloat).device(device_));
  for (int round = 0; round < 8; ++round) {
    const at::Tensor x = ToDevice(random_.Normal({15, 64}, GetParam()));  // too short for a tile
    const at::Tensor before = random_.Normal({15, 100}, GetParam());
    const int64_t split = random_.Between(0, 15), rank = random_.Between(1, 150);
    const std::vector<DeltaPlan::Term> terms = {
        Term(0, split, Delta(64, rank, 60, 1.0f), 0.5f),
        Term(split, 15, DenseDelta(64, 60, 1.0f), 1.0f),
        {0, 15, 60, 40, nullptr, Vector(40), Vector(40), 1.0f}};
    DeltaPlan plan, framed({.max_groups = 8, .max_terms = 50, .scratch = scratch});
    framed.AddFramed({}, 2, 60);  // a product without terms in front
    const size_t product = plan.Add(terms), framed_product = framed.AddFramed(terms, 2, 60);
    EXPECT_TRUE(framed.fits());
    Upload(plan);
    Upload(framed);
    const at::Tensor expected = ToDevice(before), y = ToDevice(before);
    plan.Apply(product, x, expected);
    framed.Apply(0, x, y);
    EXPECT_TRUE(SameBits(y.cpu(), before));
    framed.Apply(framed_product, x, y);
    EXPECT_TRUE(SameBits(y.cpu(), expected.cpu())) << "rank " << rank << ", rows " << split;
  }
}

TEST_P(DeltaPlanTest, WhatIsBeyondTheFrameDoesNotFit) {
  const auto scratch = [this](int64_t size) {
    return at::empty({size}, at::TensorOptions(at::kFloat).device(device_));
  };
  const std::vector<DeltaPlan::Term> terms = {Term(0, 17, Delta(64, 4, 48, 1.0f), 1.0f)};
  const auto fits = [&](DeltaPlan::Frame frame) {
    DeltaPlan plan(std::move(frame));
    plan.AddFramed(terms, 1, 48);
    return plan.fits();
  };
  EXPECT_TRUE(fits({3, 3, scratch(17 * 4)}));
  EXPECT_FALSE(fits({2, 3, scratch(17 * 4)}));
  EXPECT_FALSE(fits({3, 2, scratch(17 * 4)}));
  EXPECT_FALSE(fits({3, 3, scratch(17 * 4 - 1)}));
}

TEST_P(DeltaPlanTest, WhatDoesNotFitThrows) {
  const LowRankDelta* const delta = Delta(64, 4, 48, 1.0f);
  DeltaPlan plan;
  const std::vector<DeltaPlan::Term> overlap = {Term(0, 5, delta, 1.0f), Term(4, 9, delta, 1.0f)};
  EXPECT_THROW(plan.Add(overlap), c10::Error);
  const std::vector<DeltaPlan::Term> mixed = {Term(0, 5, delta, 1.0f),
                                              Term(5, 9, Delta(32, 4, 48, 1.0f), 1.0f)};
  EXPECT_THROW(plan.Add(mixed), c10::Error);
}

INSTANTIATE_TEST_SUITE_P(Types, DeltaPlanTest, testing::Values(at::kFloat, at::kBFloat16),
                         [](const auto& test) {
                           return test.param == at::kFloat ? "fp32" : "bf16";
                         });

}  // namespace
}  // namespace tenon
