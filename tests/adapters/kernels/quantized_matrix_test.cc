#include "adapters/kernels/quantized_matrix.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/amax.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/round.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <limits>

#include "adapters/kernels/low_rank.h"
#include "tests/adapters/kernels/kernel_testing.h"

namespace tenon {
namespace {

constexpr at::ScalarType kTypes[] = {at::kFloat, at::kBFloat16};

// Rows rounded to 127 steps of their largest value, as fp64.
at::Tensor Rounded(const at::Tensor& x) {
  const at::Tensor wide = x.to(at::kFloat);
  const at::Tensor scale = at::amax(at::abs(wide), {1}, true) / 127.0f;
  const at::Tensor inverse = at::where(scale > 0, 1.0f / scale, scale);
  return at::round(wide * inverse).to(at::kDouble) * scale.to(at::kDouble);
}

class QuantizedMatrixTest : public testing::TestWithParam<CpuIsa> {
 protected:
  QuantizedMatrixTest() : isa_(GetParam()) {}

  static at::Tensor Multiply(const QuantizedMatrix& matrix, const at::Tensor& x,
                             const at::Tensor& bias = {}) {
    const at::Tensor y = at::empty({x.size(0), matrix.out_features()}, x.options());
    matrix.Multiply(x, bias, y);
    return y;
  }

  ScopedCpuIsa isa_;
  RandomTensors random_{29};
};

TEST_P(QuantizedMatrixTest, ProductIsThatOfTheRoundedOperands) {
  for (const at::ScalarType dtype : kTypes) {
    for (const auto& [rows, in, out] : std::vector<std::array<int64_t, 3>>{{1, 1, 1},
                                                                           {1, 7, 5},
                                                                           {3, 65, 33},
                                                                           {12, 96, 64},
                                                                           {17, 127, 31},
                                                                           {33, 576, 192},
                                                                           {100, 64, 257}}) {
      SCOPED_TRACE(testing::Message() << dtype << " " << rows << " x " << in << " -> " << out);
      const at::Tensor weight = random_.Normal({out, in}, dtype);
      const at::Tensor x = random_.Normal({rows, in}, dtype);
      const at::Tensor bias = random_.Normal({out}, at::kFloat);
      const QuantizedMatrix matrix = QuantizedMatrix::Quantize({&weight, 1}).value();
      const at::Tensor expected = at::linear(Rounded(x), Rounded(weight)) + bias.to(at::kDouble);
      EXPECT_LT(WorstError(Multiply(matrix, x, bias), expected), RoundingError(dtype));
    }
  }
}

TEST_P(QuantizedMatrixTest, UnpacksToTheRoundedWeights) {
  const at::Tensor first = random_.Normal({33, 70}, at::kFloat);
  const at::Tensor second = random_.Normal({8, 70}, at::kFloat);
  const at::Tensor both[] = {first, second};
  const QuantizedMatrix matrix = QuantizedMatrix::Quantize(both).value();
  const at::Tensor expected = Rounded(at::cat({first, second}));
  EXPECT_LT(WorstError(matrix.Unpack(), expected), 1e-6);
  const at::Tensor index = at::tensor({40, 0, 33}, at::kLong);
  EXPECT_LT(WorstError(matrix.Rows(index), expected.index_select(0, index)), 1e-6);
  EXPECT_ANY_THROW(matrix.Rows(at::tensor({41}, at::kLong)));
  EXPECT_LT(matrix.nbytes(), 64 * (128 + 8) + 4 * 41);
}

TEST_P(QuantizedMatrixTest, RowHasSameBitsAtAnyNumberOfRowsAndOnAnyInstructionSet) {
  for (const at::ScalarType dtype : kTypes) {
    const at::Tensor weight = random_.Normal({130, 200}, dtype);
    const QuantizedMatrix matrix = QuantizedMatrix::Quantize({&weight, 1}).value();
    const at::Tensor x = random_.Normal({70, 200}, dtype);
    const at::Tensor all = Multiply(matrix, x);
    for (const int64_t rows : {1, 2, 12, 13, 16, 17, 32, 33}) {
      EXPECT_TRUE(SameBits(Multiply(matrix, x.narrow(0, 3, rows)), all.narrow(0, 3, rows))) << rows;
    }
    const ScopedCpuIsa portable(CpuIsa::kPortable);
    EXPECT_TRUE(SameBits(Multiply(QuantizedMatrix::Quantize({&weight, 1}).value(), x), all));
  }
}

TEST_P(QuantizedMatrixTest, ExtremesAreExact) {
  // 127 * 127 in every product, both signs; a row of zeros and one too small to have a scale.
  const int64_t in = 8192;
  at::Tensor x = at::zeros({4, in});
  x.select(0, 0).fill_(3.0f);
  x.select(0, 1).fill_(-3.0f);
  x.select(0, 3).fill_(1e-38f);
  at::Tensor weight = at::zeros({2, in});
  weight.select(0, 0).fill_(0.5f);
  const QuantizedMatrix matrix = QuantizedMatrix::Quantize({&weight, 1}).value();
  const at::Tensor y = Multiply(matrix, x);
  const at::Tensor expected = at::zeros({4, 2});
  expected.select(1, 0).copy_(at::tensor({1.5f * in, -1.5f * in, 0.0f, 0.0f}));
  EXPECT_LT(WorstError(y, expected), 1e-6);
}

TEST_P(QuantizedMatrixTest, NanInARowStaysInThatRow) {
  const at::Tensor weight = random_.Normal({40, 64}, at::kFloat);
  const QuantizedMatrix matrix = QuantizedMatrix::Quantize({&weight, 1}).value();
  const at::Tensor x = random_.Normal({3, 64}, at::kFloat);
  const at::Tensor good = Multiply(matrix, x);
  x.select(0, 1).select(0, 5).fill_(std::numeric_limits<float>::quiet_NaN());
  const at::Tensor y = Multiply(matrix, x);
  EXPECT_TRUE(SameBits(y.select(0, 0), good.select(0, 0)));
  EXPECT_TRUE(SameBits(y.select(0, 2), good.select(0, 2)));
  EXPECT_TRUE(y.select(0, 1).isnan().all().item<bool>());
}

TEST_P(QuantizedMatrixTest, AddsUpdatesInTheActivationsPrecision) {
  for (const at::ScalarType dtype : kTypes) {
    const at::Tensor weight = random_.Normal({64, 96}, dtype);
    const QuantizedMatrix matrix = QuantizedMatrix::Quantize({&weight, 1}).value();
    const LowRankDelta delta =
        LowRankDelta::Create(random_.Normal({16, 96}, dtype), random_.Normal({64, 16}, dtype), 0.5f)
            .value();
    const at::Tensor x = random_.Normal({40, 96}, dtype);
    const LowRankUpdate::Term term = {{5, 30, &delta, 1.0f}, 0};
    const at::Tensor y = at::empty({40, 64}, x.options());
    matrix.Multiply(x, {}, y, LowRankUpdate(x, {&term, 1}).updates());
    const at::Tensor expected = at::linear(Rounded(x), Rounded(weight)).to(at::kFloat);
    LowRankDelta wide = LowRankDelta::Create(delta.DownMatrix().to(at::kFloat),
                                             delta.UpMatrix().to(at::kFloat), 0.5f)
                            .value();
    const LowRankTerm reference = {5, 30, &wide, 1.0f};
    ApplyLowRankReference(x.to(at::kFloat), {&reference, 1}, expected);
    EXPECT_LT(WorstError(y, expected, std::sqrt(96.0)), RoundingError(dtype));
  }
}

TEST_P(QuantizedMatrixTest, RefusesWhatCannotBeQuantized) {
  at::Tensor weight = random_.Normal({4, 4}, at::kFloat);
  weight.select(0, 2).fill_(std::numeric_limits<float>::infinity());
  EXPECT_EQ(QuantizedMatrix::Quantize({&weight, 1}).status().message(),
            "output 2 of a weight has a value that is not finite");
  const at::Tensor wide = at::zeros({1, 131073});
  EXPECT_FALSE(QuantizedMatrix::Quantize({&wide, 1}).ok());
  const at::Tensor integers = at::zeros({4, 4}, at::kInt);
  EXPECT_FALSE(QuantizedMatrix::Quantize({&integers, 1}).ok());
  EXPECT_FALSE(QuantizedMatrix::Quantize({}).ok());
}

INSTANTIATE_TEST_SUITE_P(Isas, QuantizedMatrixTest, testing::ValuesIn(HostIsas()),
                         [](const auto& test) { return IsaName(test.param); });

}  // namespace
}  // namespace tenon
