// Tests of norm.h, rope.h and activation.h.
#include <ATen/ops/cos.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/sin.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <limits>

#include "server/kernels/activation.h"
#include "server/kernels/norm.h"
#include "server/kernels/rope.h"
#include "tests/adapters/kernels/kernel_testing.h"

namespace tenon {
namespace {

constexpr at::ScalarType kTypes[] = {at::kFloat, at::kBFloat16};
constexpr int64_t kWidths[] = {1, 3, 8, 16, 17, 31, 64, 576, 600, 2049};

class ElementwiseTest : public testing::TestWithParam<CpuIsa> {
 protected:
  ElementwiseTest() : isa_(GetParam()) {}

  ScopedCpuIsa isa_;
  RandomTensors random_{31};
};

TEST_P(ElementwiseTest, RmsNormMatchesReference) {
  for (const at::ScalarType dtype : kTypes) {
    for (const int64_t width : kWidths) {
      const at::Tensor x = random_.Normal({5, width}, dtype, 3.0f);
      const at::Tensor weight = random_.Normal({width}, dtype);
      const at::Tensor fast = at::empty_like(x), reference = at::empty_like(x);
      RmsNorm(x, weight, 1e-5f, fast);
      RmsNormReference(x, weight, 1e-5f, reference);
      EXPECT_LT(WorstError(fast, reference, 0.01), RoundingError(dtype)) << dtype << " " << width;
    }
  }
}

TEST_P(ElementwiseTest, AddRmsNormAddsToResidualFirst) {
  for (const at::ScalarType dtype : kTypes) {
    for (const int64_t width : kWidths) {
      const at::Tensor x = random_.Normal({4, width}, dtype);
      const at::Tensor weight = random_.Normal({width}, dtype);
      const at::Tensor residual = random_.Normal({4, width}, dtype);
      const at::Tensor expected_residual = residual.clone();
      const at::Tensor fast = at::empty_like(x), expected = at::empty_like(x);
      AddRmsNorm(x, residual, weight, 1e-5f, fast);
      expected_residual.add_(x);
      EXPECT_TRUE(SameBits(residual, expected_residual)) << dtype << " " << width;
      RmsNorm(residual, weight, 1e-5f, expected);
      EXPECT_TRUE(SameBits(fast, expected)) << dtype << " " << width;
    }
  }
}

TEST_P(ElementwiseTest, RmsNormMayWriteItsInput) {
  for (const at::ScalarType dtype : kTypes) {
    const at::Tensor x = random_.Normal({3, 70}, dtype), weight = random_.Normal({70}, dtype);
    const at::Tensor apart = at::empty_like(x);
    RmsNorm(x, weight, 1e-6f, apart);
    RmsNorm(x, weight, 1e-6f, x);
    EXPECT_TRUE(SameBits(x, apart));
  }
}

TEST_P(ElementwiseTest, RopeMatchesReferenceInSliceOfFusedProjection) {
  for (const at::ScalarType dtype : kTypes) {
    for (const int64_t head_dim : {2, 8, 30, 64, 128}) {
      const at::Tensor angles = random_.Normal({40, head_dim / 2}, at::kFloat, 10.0f);
      const at::Tensor cos = at::cos(angles), sin = at::sin(angles);
      const at::Tensor fused = random_.Normal({6, 5 * head_dim}, dtype);
      const at::Tensor expected = fused.clone();
      const auto heads = [&](const at::Tensor& t) {
        return t.narrow(1, head_dim, 3 * head_dim).view({6, 3, head_dim});
      };
      const at::Tensor positions = at::tensor(std::vector<int64_t>{0, 39, 7, 7, 12, 1});
      ApplyRope(heads(fused), cos, sin, positions);
      ApplyRopeReference(heads(expected), cos, sin, positions);
      EXPECT_LT(WorstError(fused, expected), RoundingError(dtype)) << dtype << " " << head_dim;
      EXPECT_TRUE(SameBits(fused.narrow(1, 0, head_dim), expected.narrow(1, 0, head_dim)));
      EXPECT_TRUE(SameBits(fused.narrow(1, 4 * head_dim, head_dim),
                           expected.narrow(1, 4 * head_dim, head_dim)));
    }
  }
}

TEST_P(ElementwiseTest, RopeTakesBothIndexTypes) {
  const at::Tensor angles = random_.Normal({9, 16}, at::kFloat);
  const at::Tensor x = random_.Normal({2, 4, 32}, at::kFloat), y = x.clone();
  const at::Tensor positions = at::tensor(std::vector<int64_t>{3, 8});
  ApplyRope(x, at::cos(angles), at::sin(angles), positions);
  ApplyRope(y, at::cos(angles), at::sin(angles), positions.to(at::kInt));
  EXPECT_TRUE(SameBits(x, y));
}

TEST_P(ElementwiseTest, SiluMulMatchesReference) {
  for (const at::ScalarType dtype : kTypes) {
    for (const int64_t width : kWidths) {
      const at::Tensor x = random_.Normal({5, 2 * width}, dtype, 4.0f);
      const at::Tensor fast = at::empty({5, width}, x.options());
      const at::Tensor reference = at::empty_like(fast);
      SiluMul(x, fast);
      SiluMulReference(x, reference);
      EXPECT_LT(WorstError(fast, reference, 0.01), RoundingError(dtype)) << dtype << " " << width;
    }
  }
}

TEST_P(ElementwiseTest, SiluMulKeepsExtremes) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  const at::Tensor x = at::tensor(std::vector<float>{200, -200, 88.5f, -88.5f, 0, NAN, kInf, 1, 1,
                                                     1, 1, 1, 1, 1, 1, 1})
                           .view({1, 16});
  const at::Tensor y = at::empty({1, 8});
  SiluMul(x, y);
  const float* actual = y.const_data_ptr<float>();
  EXPECT_EQ(actual[0], 200.0f);
  EXPECT_NEAR(actual[1], 0.0f, 1e-30);
  EXPECT_EQ(actual[2], 88.5f);
  EXPECT_NEAR(actual[3], 0.0f, 1e-30);
  EXPECT_EQ(actual[4], 0.0f);
  EXPECT_TRUE(std::isnan(actual[5]));
  EXPECT_EQ(actual[6], kInf);
}

TEST_P(ElementwiseTest, RowHasSameBitsAtAnyNumberOfRows) {
  for (const at::ScalarType dtype : kTypes) {
    const at::Tensor x = random_.Normal({40, 90}, dtype), weight = random_.Normal({90}, dtype);
    const at::Tensor norm = at::empty_like(x), gate = at::empty({40, 45}, x.options());
    RmsNorm(x, weight, 1e-5f, norm);
    SiluMul(x, gate);
    for (int64_t r = 0; r < 40; ++r) {
      const at::Tensor row = x.narrow(0, r, 1);
      const at::Tensor norm_row = at::empty_like(row), gate_row = at::empty({1, 45}, x.options());
      RmsNorm(row, weight, 1e-5f, norm_row);
      SiluMul(row, gate_row);
      EXPECT_TRUE(SameBits(norm_row, norm.narrow(0, r, 1)));
      EXPECT_TRUE(SameBits(gate_row, gate.narrow(0, r, 1)));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, ElementwiseTest, testing::ValuesIn(HostIsas()),
                         [](const auto& test) { return IsaName(test.param); });

// The references, against the definitions, on one hand-made row each.
TEST(RmsNormReferenceTest, DividesByRootMeanSquare) {
  const at::Tensor x = at::tensor(std::vector<float>{3, -4}).view({1, 2});
  const at::Tensor y = at::empty_like(x);
  RmsNormReference(x, at::tensor(std::vector<float>{1, 2}), 0.0f, y);
  EXPECT_NEAR(y[0][0].item().toFloat(), 3 / std::sqrt(12.5), 1e-6);
  EXPECT_NEAR(y[0][1].item().toFloat(), -8 / std::sqrt(12.5), 1e-6);
}

TEST(RopeReferenceTest, RotatesPairsHalfAHeadApart) {
  const at::Tensor x = at::tensor(std::vector<float>{1, 2, 3, 4}).view({1, 1, 4});
  const at::Tensor cos = at::tensor(std::vector<float>{9, 9, 0, 1}).view({2, 2});
  const at::Tensor sin = at::tensor(std::vector<float>{9, 9, 1, 0}).view({2, 2});
  ApplyRopeReference(x, cos, sin, at::tensor(std::vector<int64_t>{1}));
  const float* actual = x.const_data_ptr<float>();
  EXPECT_EQ(actual[0], -3.0f);
  EXPECT_EQ(actual[1], 2.0f);
  EXPECT_EQ(actual[2], 1.0f);
  EXPECT_EQ(actual[3], 4.0f);
}

TEST(RopeTest, ThrowsOnPositionOutsideTable) {
  const at::Tensor x = at::zeros({1, 1, 4}), table = at::zeros({3, 2});
  EXPECT_THROW(ApplyRope(x, table, table, at::tensor(std::vector<int64_t>{3})), c10::Error);
  EXPECT_THROW(ApplyRope(x, table, table, at::tensor(std::vector<int64_t>{-1})), c10::Error);
}

TEST(SiluMulTest, ThrowsOnWrongShape) {
  EXPECT_THROW(SiluMul(at::zeros({2, 6}), at::zeros({2, 4})), c10::Error);
  EXPECT_THROW(SiluMul(at::zeros({3, 8}), at::zeros({2, 4})), c10::Error);
}

}  // namespace
}  // namespace tenon
