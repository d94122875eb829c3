#include "adapters/kernels/bottleneck.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <c10/util/Exception.h>

#include <vector>

#include "tests/adapters/kernels/bottleneck_testing.h"
#include "tests/adapters/kernels/kernel_testing.h"

namespace tenon {
namespace {

constexpr at::ScalarType kTypes[] = {at::kFloat, at::kBFloat16};

class BottleneckTest : public testing::TestWithParam<CpuIsa> {
 protected:
  BottleneckTest() : isa_(GetParam()) {}

  ScopedCpuIsa isa_;
  RandomTensors random_{43};
  RandomBottlenecks modules_{random_};
};

TEST_P(BottleneckTest, MatchesReferenceOnRandomBatches) {
  for (int round = 0; round < 60; ++round) {
    for (const at::ScalarType dtype : kTypes) {
      const int64_t rows = random_.Between(1, 40), hidden = random_.Between(2, 130);
      std::vector<BottleneckDelta> deltas;
      for (int i = 0; i < 3; ++i) {
        deltas.push_back(modules_.Variant(hidden, random_.Between(1, 70), dtype));
      }
      std::vector<BottleneckTerm> terms;
      for (int i = 0; i < 4; ++i) {  // may overlap, may be empty
        const int64_t begin = random_.Between(0, rows), end = random_.Between(begin, rows);
        terms.push_back({begin, end, &deltas[random_.Between(0, 2)], 0.25f * (i + 1)});
      }
      const at::Tensor residual = random_.Normal({rows, hidden}, dtype);
      const at::Tensor out = random_.Normal({rows, hidden}, dtype), expected = out.clone();
      ApplyBottleneck(residual, terms, out);
      ApplyBottleneckReference(residual, terms, expected);
      // bf16: the products' inputs are rounded, and norms of narrow rows magnify that.
      EXPECT_LT(WorstError(out, expected), dtype == at::kFloat ? 2e-4 : 0.15)
          << "round " << round << " " << dtype << " rows " << rows << " hidden " << hidden;
    }
  }
}

TEST_P(BottleneckTest, RowHasSameBitsInAnySegment) {
  for (const at::ScalarType dtype : kTypes) {
    for (int round = 0; round < 6; ++round) {
      const BottleneckDelta delta = modules_.Variant(75, 1 + 12 * round, dtype);
      const BottleneckDelta other = modules_.Variant(75, 4, dtype);
      const at::Tensor residual = random_.Normal({64, 75}, dtype);
      const at::Tensor before = random_.Normal({64, 75}, dtype), whole = before.clone();
      const BottleneckTerm all{0, 64, &delta, 0.5f};
      ApplyBottleneck(residual, {&all, 1}, whole);
      for (const int64_t rows : {1, 2, 13, 29}) {
        const at::Tensor part = before.clone();
        const BottleneckTerm terms[] = {{0, 20, &other, 1.0f}, {20, 20 + rows, &delta, 0.5f}};
        ApplyBottleneck(residual, terms, part);
        EXPECT_TRUE(SameBits(part.narrow(0, 20, rows), whole.narrow(0, 20, rows)))
            << dtype << ", " << rows << " rows";
        EXPECT_TRUE(
            SameBits(part.narrow(0, 20 + rows, 44 - rows), before.narrow(0, 20 + rows, 44 - rows)));
      }
    }
  }
}

TEST_P(BottleneckTest, TermsOnOneRowReadWhatCameIn) {
  const BottleneckDelta first = modules_.Plain(20, 5, at::kFloat),
                        second = modules_.Plain(20, 3, at::kFloat);
  const at::Tensor residual = random_.Normal({4, 20}, at::kFloat);
  const at::Tensor out = random_.Normal({4, 20}, at::kFloat);
  const at::Tensor together = out.clone(), one = out.clone(), two = out.clone();
  const BottleneckTerm terms[] = {{0, 4, &first, 0.3f}, {0, 4, &second, -1.7f}};
  ApplyBottleneck(residual, terms, together);
  ApplyBottleneck(residual, {&terms[0], 1}, one);
  ApplyBottleneck(residual, {&terms[1], 1}, two);
  EXPECT_LT(WorstError(together, one + two - out), 1e-5);
}

INSTANTIATE_TEST_SUITE_P(Isas, BottleneckTest, testing::ValuesIn(HostIsas()),
                         [](const auto& test) { return IsaName(test.param); });

at::Tensor Row(std::vector<float> values) {
  return at::tensor(values).view({1, static_cast<int64_t>(values.size())});
}

// down = [1, 1], up = [1, 2]^T, so that u = scale * f(sum of the input + bias) * [1, 2].
BottleneckDelta HandDelta() {
  BottleneckDelta delta;
  const at::Tensor down = Row({1, 1}), up = at::tensor(std::vector<float>{1, 2}).view({2, 1});
  delta.down = *PackedMatrix::Pack({&down, 1});
  delta.up = *PackedMatrix::Pack({&up, 1});
  delta.down_bias = at::full({1}, 0.5f);
  delta.up_bias = at::full({2}, 1.0f);
  delta.scale = at::full({2}, 2.0f);
  return delta;
}

// The reference itself, against numbers worked out by hand.
TEST(ApplyBottleneckReferenceTest, ComputesTheEquation) {
  const at::Tensor residual = Row({10, 20});
  BottleneckDelta delta = HandDelta();
  const BottleneckTerm term{0, 1, &delta, 1.0f};
  at::Tensor out = Row({1, 2});
  ApplyBottleneckReference(residual, {&term, 1}, out);  // u = 2 * (3.5 * [1, 2] + 1)
  EXPECT_TRUE(SameBits(out, Row({1 + 9, 2 + 16})));

  delta.input = BottleneckInput::kResidual;  // u = 2 * (30.5 * [1, 2] + 1)
  out = Row({1, 2});
  ApplyBottleneckReference(residual, {&term, 1}, out);
  EXPECT_TRUE(SameBits(out, Row({1 + 63, 2 + 124})));

  delta.input = BottleneckInput::kOutputPlusResidual;  // u = 2 * (33.5 * [1, 2] + 1)
  delta.residual = BottleneckResidual::kInput;
  delta.drops_stream = true;  // u + (out + residual) - residual
  out = Row({1, 2});
  ApplyBottleneckReference(residual, {&term, 1}, out);
  EXPECT_TRUE(SameBits(out, Row({1 + 69, 2 + 136})));

  delta.norm_after = {at::full({2}, 3.0f), at::full({2}, 1.0f)};  // of [80, 158]: -1 and 1
  delta.adds_residual_before_norm = true;
  delta.drops_stream = false;
  out = Row({1, 2});
  ApplyBottleneckReference(residual, {&term, 1}, out);
  EXPECT_LT(WorstError(out, Row({-2, 4})), 1e-5);
}

TEST(ApplyBottleneckTest, ThrowsAndLeavesOutputOnMismatch) {
  const BottleneckDelta good = HandDelta();
  BottleneckDelta wrong_bias = HandDelta(), wrong_scale = HandDelta(), no_up = HandDelta();
  wrong_bias.down_bias = at::full({2}, 0.0f);
  wrong_scale.scale = at::full({1}, 0.0f);
  no_up.up = PackedMatrix();
  const at::Tensor residual = Row({10, 20}), out = Row({1, 2});
  for (const BottleneckDelta* bad : {&wrong_bias, &wrong_scale, &no_up}) {
    const BottleneckTerm terms[] = {{0, 1, &good, 1.0f}, {0, 1, bad, 1.0f}};
    EXPECT_THROW(ApplyBottleneck(residual, terms, out), c10::Error);
  }
  const BottleneckTerm beyond{0, 2, &good, 1.0f};
  EXPECT_THROW(ApplyBottleneck(residual, {&beyond, 1}, out), c10::Error);
  EXPECT_TRUE(SameBits(out, Row({1, 2})));
}

TEST(BottleneckDeltaTest, CountsAllBytes) {
  BottleneckDelta delta = HandDelta();
  const int64_t panels = 4 * (2 * 32 + 1 * 32);  // down: 2 inputs, up: 1, by 32 columns
  EXPECT_EQ(delta.nbytes(), panels + 4 * (1 + 2 + 2));
  delta.norm_before = {at::full({2}, 3.0f), at::full({2}, 1.0f)};
  delta.input_norm = at::full({2}, 3.0f);
  EXPECT_EQ(delta.nbytes(), panels + 4 * (1 + 2 + 2 + 6));
}

}  // namespace
}  // namespace tenon
