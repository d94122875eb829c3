// Tests of norm.h, rope.h and activation.h.
#include <ATen/TensorOperators.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/sin.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "server/kernels/activation.h"
#include "server/kernels/norm.h"
#include "server/kernels/rope.h"
#include "tests/adapters/kernels/kernel_testing.h"

namespace tenon {
namespace {

constexpr at::ScalarType kTypes[] = {at::kFloat, at::kBFloat16};
constexpr int64_t kWidths[] = {1, 3, 8, 16, 17, 31, 64, 576, 600, 2049};

constexpr NormKind kNorms[] = {NormKind::kRms, NormKind::kRmsFromOne, NormKind::kLayer};
constexpr Activation kActivations[] = {Activation::kSilu, Activation::kGeluTanh};

std::string NormName(NormKind kind) {
  return kind == NormKind::kRms ? "rms" : kind == NormKind::kLayer ? "layer" : "rms from one";
}

class ElementwiseTest : public testing::TestWithParam<CpuIsa> {
 protected:
  ElementwiseTest() : isa_(GetParam()) {}

  Norm RandomNorm(NormKind kind, int64_t width, at::ScalarType dtype) {
    return Norm::Make(kind, 1e-5f, random_.Normal({width}, dtype), random_.Normal({width}, dtype));
  }

  ScopedCpuIsa isa_;
  RandomTensors random_{31};
};

TEST_P(ElementwiseTest, NormMatchesReference) {
  for (const NormKind kind : kNorms) {
    for (const at::ScalarType dtype : kTypes) {
      for (const int64_t width : kWidths) {
        const at::Tensor x = random_.Normal({5, width}, dtype, 3.0f) + 2.0;
        const Norm norm = RandomNorm(kind, width, dtype);
        const at::Tensor fast = at::empty_like(x), reference = at::empty_like(x);
        Normalize(x, norm, fast);
        NormalizeReference(x, norm, reference);
        EXPECT_LT(WorstError(fast, reference, 0.1), RoundingError(dtype))
            << NormName(kind) << " " << dtype << " " << width;
      }
    }
  }
}

TEST_P(ElementwiseTest, AddNormalizeAddsToResidualFirst) {
  for (const NormKind kind : kNorms) {
    for (const at::ScalarType dtype : kTypes) {
      for (const int64_t width : kWidths) {
        const at::Tensor x = random_.Normal({4, width}, dtype);
        const Norm norm = RandomNorm(kind, width, dtype);
        const at::Tensor residual = random_.Normal({4, width}, dtype);
        const at::Tensor expected_residual = residual.clone();
        const at::Tensor fast = at::empty_like(x), expected = at::empty_like(x);
        AddNormalize(x, residual, norm, fast);
        expected_residual.add_(x);
        EXPECT_TRUE(SameBits(residual, expected_residual)) << NormName(kind) << " " << width;
        Normalize(residual, norm, expected);
        EXPECT_TRUE(SameBits(fast, expected)) << NormName(kind) << " " << dtype << " " << width;
      }
    }
  }
}

TEST_P(ElementwiseTest, NormMayWriteItsInput) {
  for (const NormKind kind : kNorms) {
    for (const at::ScalarType dtype : kTypes) {
      const at::Tensor x = random_.Normal({3, 70}, dtype);
      const Norm norm = RandomNorm(kind, 70, dtype);
      const at::Tensor apart = at::empty_like(x);
      Normalize(x, norm, apart);
      Normalize(x, norm, x);
      EXPECT_TRUE(SameBits(x, apart)) << NormName(kind);
    }
  }
}

TEST_P(ElementwiseTest, NormalizeHeadsNormsEachHeadOfSliceAlone) {
  for (const NormKind kind : kNorms) {
    for (const at::ScalarType dtype : kTypes) {
      for (const int64_t head_dim : {2, 24, 64, 80}) {
        const at::Tensor fused = random_.Normal({6, 5 * head_dim}, dtype, 2.0f);
        const at::Tensor before = fused.clone(), reference = fused.clone();
        const Norm norm = RandomNorm(kind, head_dim, dtype);
        const auto heads = [&](const at::Tensor& t) {
          return t.narrow(1, head_dim, 3 * head_dim).view({6, 3, head_dim});
        };
        NormalizeHeads(heads(fused), norm);
        NormalizeHeadsReference(heads(reference), norm);
        EXPECT_LT(WorstError(fused, reference, 0.1), RoundingError(dtype)) << NormName(kind);
        const at::Tensor alone = at::empty({6, head_dim}, fused.options());
        Normalize(heads(before).select(1, 1), norm, alone);
        EXPECT_TRUE(SameBits(heads(fused).select(1, 1), alone));
        EXPECT_TRUE(SameBits(fused.narrow(1, 0, head_dim), before.narrow(1, 0, head_dim)));
        EXPECT_TRUE(SameBits(fused.narrow(1, 4 * head_dim, head_dim),
                             before.narrow(1, 4 * head_dim, head_dim)));
      }
    }
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

TEST_P(ElementwiseTest, ActivationsMatchReference) {
  for (const Activation activation : kActivations) {
    for (const at::ScalarType dtype : kTypes) {
      for (const int64_t width : kWidths) {
        const at::Tensor x = random_.Normal({5, 2 * width}, dtype, 4.0f);
        const at::Tensor gated = at::empty({5, width}, x.options());
        const at::Tensor gated_reference = at::empty_like(gated);
        Gate(x, activation, gated);
        GateReference(x, activation, gated_reference);
        EXPECT_LT(WorstError(gated, gated_reference, 0.01), RoundingError(dtype)) << width;
        const at::Tensor plain = at::empty_like(x), plain_reference = at::empty_like(x);
        Activate(x, activation, plain);
        ActivateReference(x, activation, plain_reference);
        EXPECT_LT(WorstError(plain, plain_reference, 0.01), RoundingError(dtype)) << width;
      }
    }
  }
}

TEST_P(ElementwiseTest, SoftCapMatchesReference) {
  for (const at::ScalarType dtype : kTypes) {
    for (const int64_t width : kWidths) {
      for (const float spread : {0.1f, 1.0f, 20.0f, 1000.0f}) {
        const at::Tensor x = random_.Normal({5, width}, dtype, spread), reference = x.clone();
        SoftCap(x, 30.0f);
        SoftCapReference(reference, 30.0f);
        EXPECT_LT(WorstError(x, reference, 1e-6), RoundingError(dtype)) << width << " " << spread;
      }
    }
  }
}

TEST_P(ElementwiseTest, SoftCapKeepsExtremes) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  const at::Tensor x = at::tensor(std::vector<float>{kInf, -kInf, NAN, 0, -0.0f}).view({1, 5});
  SoftCap(x, 50.0f);
  const float* actual = x.const_data_ptr<float>();
  EXPECT_EQ(actual[0], 50.0f);
  EXPECT_EQ(actual[1], -50.0f);
  EXPECT_TRUE(std::isnan(actual[2]));
  EXPECT_EQ(actual[3], 0.0f);
  EXPECT_EQ(actual[4], 0.0f);
}

TEST_P(ElementwiseTest, ActivationsKeepExtremes) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  const at::Tensor x = at::tensor(std::vector<float>{200, -200, 88.5f, -88.5f, 0, NAN, kInf, 1, 1,
                                                     1, 1, 1, 1, 1, 1, 1})
                           .view({1, 16});
  for (const Activation activation : kActivations) {
    const at::Tensor y = at::empty({1, 8});
    Gate(x, activation, y);
    const float* actual = y.const_data_ptr<float>();
    EXPECT_EQ(actual[0], 200.0f);
    EXPECT_NEAR(actual[1], 0.0f, 1e-30);
    EXPECT_EQ(actual[2], 88.5f);
    EXPECT_NEAR(actual[3], 0.0f, 1e-30);
    EXPECT_EQ(actual[4], 0.0f);
    EXPECT_TRUE(std::isnan(actual[5]));
    EXPECT_EQ(actual[6], kInf);
  }
}

TEST_P(ElementwiseTest, RowHasSameBitsAtAnyNumberOfRows) {
  for (const at::ScalarType dtype : kTypes) {
    const at::Tensor x = random_.Normal({40, 90}, dtype), weight = random_.Normal({90}, dtype);
    const auto run = [&](const at::Tensor& rows, NormKind kind, Activation activation) {
      const at::Tensor norm = at::empty_like(rows);
      const at::Tensor gate = at::empty({rows.size(0), 45}, rows.options());
      const at::Tensor capped = rows.clone();
      Normalize(rows, Norm::Make(kind, 1e-5f, weight, weight), norm);
      Gate(rows, activation, gate);
      SoftCap(capped, 2.0f);
      return std::vector<at::Tensor>{norm, gate, capped};
    };
    for (const NormKind kind : kNorms) {
      const Activation activation =
          kind == NormKind::kRms ? Activation::kSilu : Activation::kGeluTanh;
      const std::vector<at::Tensor> all = run(x, kind, activation);
      for (int64_t r = 0; r < 40; ++r) {
        const std::vector<at::Tensor> row = run(x.narrow(0, r, 1), kind, activation);
        for (size_t i = 0; i < all.size(); ++i) {
          EXPECT_TRUE(SameBits(row[i], all[i].narrow(0, r, 1))) << NormName(kind) << " " << i;
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, ElementwiseTest, testing::ValuesIn(HostIsas()),
                         [](const auto& test) { return IsaName(test.param); });

// The references, against the definitions, on one hand-made row each.
TEST(RmsNormReferenceTest, DividesByRootMeanSquare) {
  const at::Tensor x = at::tensor(std::vector<float>{3, -4}).view({1, 2});
  const at::Tensor y = at::empty_like(x), weight = at::tensor(std::vector<float>{1, 2});
  NormalizeReference(x, Norm::Make(NormKind::kRms, 0.0f, weight, {}), y);
  EXPECT_NEAR(y[0][0].item().toFloat(), 3 / std::sqrt(12.5), 1e-6);
  EXPECT_NEAR(y[0][1].item().toFloat(), -8 / std::sqrt(12.5), 1e-6);
  NormalizeReference(x, Norm::Make(NormKind::kRmsFromOne, 0.0f, weight, {}), y);
  EXPECT_NEAR(y[0][0].item().toFloat(), 6 / std::sqrt(12.5), 1e-6);
  EXPECT_NEAR(y[0][1].item().toFloat(), -12 / std::sqrt(12.5), 1e-6);
}

TEST(LayerNormReferenceTest, DividesByStandardDeviation) {
  const at::Tensor x = at::tensor(std::vector<float>{1, 5}).view({1, 2});
  const at::Tensor y = at::empty_like(x), weight = at::tensor(std::vector<float>{3, 4});
  NormalizeReference(x, Norm::Make(NormKind::kLayer, 0.0f, weight, weight), y);
  EXPECT_NEAR(y[0][0].item().toFloat(), -3 + 3, 1e-6);
  EXPECT_NEAR(y[0][1].item().toFloat(), 4 + 4, 1e-6);
}

// Gemma keeps the product in fp32 and rounds once; Llama rounds in between.
TEST(RmsNormReferenceTest, RoundsOnceOrTwice) {
  const at::Tensor x = at::tensor(std::vector<float>{1, 1.0078125f}).view({1, 2}).to(at::kBFloat16);
  const at::Tensor weight = at::tensor(std::vector<float>{0.335f, 0.335f});
  const at::Tensor once = at::empty_like(x), twice = at::empty_like(x);
  NormalizeReference(x, Norm::Make(NormKind::kRmsFromOne, 0.0f, weight, {}), once);
  NormalizeReference(x, Norm::Make(NormKind::kRms, 0.0f, weight + 1.0, {}), twice);
  EXPECT_EQ(once[0][1].item().toFloat(), 1.34375f);
  EXPECT_EQ(twice[0][1].item().toFloat(), 1.3359375f);
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

TEST(ActivationTest, ThrowsOnWrongShape) {
  const at::Tensor y = at::zeros({2, 4});
  EXPECT_THROW(Gate(at::zeros({2, 6}), Activation::kSilu, y), c10::Error);
  EXPECT_THROW(Gate(at::zeros({3, 8}), Activation::kSilu, y), c10::Error);
  EXPECT_THROW(Activate(at::zeros({2, 8}), Activation::kSilu, y), c10::Error);
  EXPECT_THROW(SoftCap(y, 0.0f), c10::Error);
}

TEST(NormTest, ThrowsOnWeightsThatDoNotFit) {
  const at::Tensor x = at::zeros({2, 4}), five = at::zeros({5});
  EXPECT_THROW(Normalize(x, Norm::Make(NormKind::kRms, 1e-5f, five, {}), x), c10::Error);
  Norm without_bias = Norm::Make(NormKind::kRms, 1e-5f, at::zeros({4}), {});
  without_bias.kind = NormKind::kLayer;
  EXPECT_THROW(Normalize(x, without_bias, x), c10::Error);
}

}  // namespace
}  // namespace tenon
