// The CUDA kernels of bottleneck modules against the reference; on the host, or on a GPU.
#include "adapters/kernels/bottleneck_plan.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>

#include <memory>
#include <utility>
#include <vector>

#include "tests/adapters/kernels/bottleneck_testing.h"
#include "tests/adapters/kernels/kernel_testing.h"
#include "tests/device/test_device.h"

namespace tenon {
namespace {

class BottleneckPlanTest : public testing::TestWithParam<at::ScalarType> {
 protected:
  // A module on the device; `modules_` keeps it.
  const BottleneckDelta* Module(int64_t hidden, int64_t width) {
    modules_.push_back(std::make_unique<BottleneckDelta>(
        random_modules_.Variant(hidden, width, GetParam()).OnDevice(device_)));
    return modules_.back().get();
  }

  // Puts the plan's tables on the device; `tables_` keeps them.
  void Upload(BottleneckPlan& plan) {
    DeviceTables& tables = *tables_.emplace_back(std::make_unique<DeviceTables>(device_));
    plan.Stage(tables, device_);
    tables.Upload();
  }

  at::Tensor Rows(int64_t rows, int64_t hidden) {
    return random_.Normal({rows, hidden}, GetParam());
  }

  at::Tensor Apply(std::span<const BottleneckTerm> terms, const at::Tensor& residual,
                   const at::Tensor& before) {
    const at::Tensor out = before.to(device_);
    BottleneckPlan plan;
    const size_t sublayer = plan.Add(terms);
    Upload(plan);
    plan.Apply(sublayer, residual.to(device_), out);
    return out.cpu();
  }

  void ExpectReference(int64_t rows, int64_t hidden, const std::vector<BottleneckTerm>& terms) {
    const at::Tensor residual = Rows(rows, hidden), before = Rows(rows, hidden);
    std::vector<BottleneckDelta> modules;  // in fp32 on the CPU
    modules.reserve(terms.size());
    std::vector<BottleneckTerm> expected_terms = terms;
    for (BottleneckTerm& term : expected_terms) {
      modules.push_back(term.delta->OnDevice(at::kCPU));
      term.delta = &modules.back();
    }
    const at::Tensor expected = before.to(at::kFloat, false, true);
    ApplyBottleneckReference(residual.to(at::kFloat), expected_terms, expected);
    EXPECT_LE(WorstError(Apply(terms, residual, before), expected),
              GetParam() == at::kFloat ? 2e-4 : RoundingError(GetParam()))
        << rows << " rows of " << hidden;
  }

  c10::InferenceMode mode_;
  at::Device device_ = KernelTestDevice().device;
  RandomTensors random_{19};
  RandomBottlenecks random_modules_{random_};
  std::vector<std::unique_ptr<BottleneckDelta>> modules_;
  std::vector<std::unique_ptr<DeviceTables>> tables_;
};

TEST_P(BottleneckPlanTest, RandomSegmentsMatchTheReference) {
  for (int round = 0; round < 40; ++round) {
    const int64_t hidden = random_.Between(2, 300);
    std::vector<BottleneckTerm> terms;
    int64_t end = 0;
    for (int64_t segment = random_.Between(1, 4); segment > 0; --segment) {
      const int64_t begin = end + random_.Between(0, 2);  // rows between segments have no module
      end = begin + random_.Between(0, 19);               // a segment may be empty
      for (int64_t i = random_.Between(1, 3); i > 0; --i) {
        terms.push_back(
            {begin, end, Module(hidden, random_.Between(1, 70)), 0.3f * static_cast<float>(i)});
      }
    }
    ExpectReference(end + random_.Between(1, 3), hidden, terms);
  }
}

TEST_P(BottleneckPlanTest, RowsWithoutModulesKeepTheirBits) {
  const at::Tensor residual = Rows(12, 40), before = Rows(12, 40);
  const BottleneckTerm terms[] = {{2, 3, Module(40, 8), 1.0f}, {5, 9, Module(40, 1), 1.0f}};
  const at::Tensor after = Apply(terms, residual, before);
  for (const auto& [begin, count] : {std::pair(0, 2), std::pair(3, 2), std::pair(9, 3)}) {
    EXPECT_TRUE(SameBits(after.narrow(0, begin, count), before.narrow(0, begin, count)));
  }
  EXPECT_FALSE(SameBits(after.narrow(0, 2, 1), before.narrow(0, 2, 1)));
}

TEST_P(BottleneckPlanTest, RowHasTheSameBitsAloneAndAmongOthers) {
  const BottleneckDelta* const module = Module(75, 33);
  const at::Tensor residual = Rows(20, 75), before = Rows(20, 75);
  const BottleneckTerm many[] = {{0, 9, Module(75, 64), 1.0f}, {9, 20, module, 0.5f}};
  const BottleneckTerm one[] = {{0, 1, module, 0.5f}};
  const at::Tensor together = Apply(many, residual, before);
  const at::Tensor alone = Apply(one, residual.narrow(0, 13, 1), before.narrow(0, 13, 1));
  EXPECT_TRUE(SameBits(together.narrow(0, 13, 1), alone));
}

TEST_P(BottleneckPlanTest, SublayersOfOnePlanUseTheirOwnModules) {
  const at::Tensor residual = Rows(9, 40), before = Rows(9, 40);
  const BottleneckTerm first[] = {{0, 9, Module(40, 8), 1.0f}};
  const BottleneckTerm second[] = {{1, 5, Module(40, 50), 1.0f}};
  BottleneckPlan plan;
  plan.Add(first);
  const size_t sublayer = plan.Add(second);
  Upload(plan);
  const at::Tensor out = before.to(device_);
  plan.Apply(sublayer, residual.to(device_), out);
  EXPECT_TRUE(SameBits(out.cpu(), Apply(second, residual, before)));
}

TEST_P(BottleneckPlanTest, FramedSublayersHaveTheSameBits) {
  const auto scratch = [this](int64_t size) {
    return at::empty({size}, at::TensorOptions(at::kFloat).device(device_));
  };
  const at::Tensor residual = Rows(12, 40), before = Rows(12, 40);
  const BottleneckTerm terms[] = {{0, 9, Module(40, 300), 1.0f}, {9, 12, Module(40, 1), 0.5f}};
  const auto framed = [&](BottleneckPlan::Frame frame) {
    BottleneckPlan plan(std::move(frame));
    plan.AddFramed({}, 40, GetParam());  // a sublayer without modules in front
    plan.AddFramed(terms, 40, GetParam());
    return plan;
  };
  BottleneckPlan plan =
      framed({4, 8, scratch(12 * 40), scratch(12 * 40), scratch(9 * 300 + 3 * 1)});
  EXPECT_TRUE(plan.fits());
  Upload(plan);
  const at::Tensor out = before.to(device_);
  plan.Apply(0, residual.to(device_), out);
  EXPECT_TRUE(SameBits(out.cpu(), before));
  plan.Apply(1, residual.to(device_), out);
  EXPECT_TRUE(SameBits(out.cpu(), Apply(terms, residual, before)));

  EXPECT_FALSE(framed({2, 8, scratch(480), scratch(480), scratch(2703)}).fits());
  EXPECT_FALSE(framed({4, 2, scratch(480), scratch(480), scratch(2703)}).fits());
  EXPECT_FALSE(framed({4, 8, scratch(479), scratch(480), scratch(2703)}).fits());
  EXPECT_FALSE(framed({4, 8, scratch(480), scratch(480), scratch(2702)}).fits());
}

TEST_P(BottleneckPlanTest, WhatDoesNotFitThrows) {
  const BottleneckDelta* const module = Module(40, 8);
  BottleneckPlan plan;
  const BottleneckTerm overlap[] = {{0, 5, module, 1.0f}, {4, 9, module, 1.0f}};
  EXPECT_THROW(plan.Add(overlap), c10::Error);
  const BottleneckTerm mixed[] = {{0, 5, module, 1.0f}, {5, 9, Module(32, 8), 1.0f}};
  EXPECT_THROW(plan.Add(mixed), c10::Error);
  const BottleneckTerm good[] = {{0, 5, module, 1.0f}};
  EXPECT_THROW(Apply(good, Rows(4, 40), Rows(4, 40)), c10::Error);
}

INSTANTIATE_TEST_SUITE_P(Types, BottleneckPlanTest, testing::Values(at::kFloat, at::kBFloat16),
                         [](const auto& test) {
                           return test.param == at::kFloat ? "fp32" : "bf16";
                         });

}  // namespace
}  // namespace tenon
