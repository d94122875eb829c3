#include "server/kernels/linear.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <cstring>
#include <limits>

#include "adapters/kernels/cpu_isa.h"
#include "tests/adapters/kernels/kernel_testing.h"

namespace tenon {
namespace {

at::Tensor Apply(const Linear& linear, const at::Tensor& x) {
  at::Tensor y = at::empty({x.size(0), linear.out_features()}, x.options());
  linear.Forward(x, y);
  return y;
}

class LinearTest : public testing::TestWithParam<CpuIsa> {
 protected:
  LinearTest() : isa_(GetParam()) {}

  ScopedCpuIsa isa_;
  RandomTensors random_{17};
};

TEST_P(LinearTest, MatchesReferenceOnAnyShape) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    for (const auto& [rows, in, out] : std::vector<std::array<int64_t, 3>>{{1, 1, 1},
                                                                           {1, 7, 5},
                                                                           {2, 64, 32},
                                                                           {3, 65, 33},
                                                                           {5, 31, 100},
                                                                           {12, 96, 64},
                                                                           {13, 127, 31},
                                                                           {25, 576, 192},
                                                                           {100, 33, 257},
                                                                           {300, 48, 70}}) {
      SCOPED_TRACE(testing::Message() << dtype << " " << rows << " x " << in << " -> " << out);
      const at::Tensor weight = random_.Normal({out, in}, dtype);
      const at::Tensor bias = random_.Normal({out}, dtype);
      const at::Tensor x = random_.Normal({rows, in}, dtype);
      const Linear fast = Linear::Create({weight}, {bias}, KernelKind::kCpu).value();
      const Linear wide =
          Linear::Create({weight.to(at::kDouble)}, {bias.to(at::kDouble)}, KernelKind::kReference)
              .value();
      const double scale = std::sqrt(static_cast<double>(in));
      EXPECT_LT(WorstError(Apply(fast, x), Apply(wide, x.to(at::kDouble)), scale),
                RoundingError(dtype));
    }
  }
}

TEST_P(LinearTest, RowsAreTheWeightsAsTheyWereGiven) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    for (const KernelKind kind : {KernelKind::kCpu, KernelKind::kReference}) {
      const at::Tensor first = random_.Normal({33, 7}, dtype),
                       second = random_.Normal({40, 7}, dtype);
      const Linear linear = Linear::Create({first, second}, {}, kind).value();
      const at::Tensor index = at::tensor({72, 0, 32, 33, 0}, at::kLong);
      EXPECT_TRUE(at::equal(linear.Rows(index), at::cat({first, second}).index_select(0, index)));
      EXPECT_ANY_THROW(linear.Rows(at::tensor({73}, at::kLong)));
    }
  }
}

TEST_P(LinearTest, RowHasSameBitsAtAnyNumberOfRows) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const Linear linear =
        Linear::Create({random_.Normal({160, 83}, dtype)}, {}, KernelKind::kCpu).value();
    const at::Tensor x = random_.Normal({256, 83}, dtype);
    const at::Tensor all = Apply(linear, x);
    for (int64_t rows = 1; rows <= 30; ++rows) {
      EXPECT_TRUE(SameBits(Apply(linear, x.narrow(0, 0, rows)), all.narrow(0, 0, rows)))
          << dtype << ", " << rows << " rows from the first";
      EXPECT_TRUE(SameBits(Apply(linear, x.narrow(0, 100, rows)), all.narrow(0, 100, rows)))
          << dtype << ", " << rows << " rows from the hundredth";
    }
  }
}

TEST_P(LinearTest, StackedWeightsEqualSingleOnes) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const at::Tensor q = random_.Normal({40, 24}, dtype), k = random_.Normal({8, 24}, dtype),
                     v = random_.Normal({9, 24}, dtype), bias = random_.Normal({8}, dtype);
    const at::Tensor x = random_.Normal({6, 24}, dtype);
    const Linear fused =
        Linear::Create({q, k, v}, {at::Tensor(), bias, at::Tensor()}, KernelKind::kCpu).value();
    const at::Tensor y = Apply(fused, x);
    EXPECT_EQ(fused.out_features(), 57);
    EXPECT_TRUE(SameBits(y.narrow(1, 0, 40), Apply(*Linear::Create({q}, {}, KernelKind::kCpu), x)));
    EXPECT_TRUE(
        SameBits(y.narrow(1, 40, 8), Apply(*Linear::Create({k}, {bias}, KernelKind::kCpu), x)));
    EXPECT_TRUE(SameBits(y.narrow(1, 48, 9), Apply(*Linear::Create({v}, {}, KernelKind::kCpu), x)));
  }
}

TEST_P(LinearTest, WritesColumnSliceAndNothingBesideIt) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const Linear linear =
        Linear::Create({random_.Normal({37, 20}, dtype)}, {}, KernelKind::kCpu).value();
    const at::Tensor wide_x = random_.Normal({14, 30}, dtype);
    const at::Tensor x = wide_x.narrow(1, 3, 20);
    const at::Tensor wide_y = at::full({14, 60}, 7.0, at::TensorOptions().dtype(dtype));
    linear.Forward(x, wide_y.narrow(1, 11, 37));
    EXPECT_TRUE(SameBits(wide_y.narrow(1, 11, 37), Apply(linear, x.contiguous())));
    EXPECT_TRUE(SameBits(wide_y.narrow(1, 0, 11), at::full({14, 11}, 7.0, x.options())));
    EXPECT_TRUE(SameBits(wide_y.narrow(1, 48, 12), at::full({14, 12}, 7.0, x.options())));
  }
}

TEST_P(LinearTest, PaddingNeverReachesNeighbours) {
  // A NaN in one row of x stays in that row of y, and the zeros behind the last column stay out.
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const at::Tensor x = random_.Normal({5, 9}, dtype);
    x.select(0, 2).fill_(std::numeric_limits<float>::quiet_NaN());
    const Linear linear =
        Linear::Create({random_.Normal({3, 9}, dtype)}, {}, KernelKind::kCpu).value();
    const at::Tensor finite = Apply(linear, x).isfinite().to(at::kInt).sum({1});
    for (int64_t r = 0; r < 5; ++r) {
      EXPECT_EQ(finite[r].item().toInt(), r == 2 ? 0 : 3) << dtype << " row " << r;
    }
  }
}

TEST_P(LinearTest, TakesUnalignedWeightsAndForgetsThem) {
  std::vector<char> file(1 + 40 * 24 * 2, 0);
  const at::Tensor weight = random_.Normal({40, 24}, at::kBFloat16);
  std::memcpy(file.data() + 1, weight.const_data_ptr(), 40 * 24 * 2);
  const at::Tensor view = at::from_blob(file.data() + 1, {40, 24}, weight.options());
  const Linear linear = Linear::Create({view}, {}, KernelKind::kCpu).value();
  std::fill(file.begin(), file.end(), 0x7f);
  const at::Tensor x = random_.Normal({2, 24}, at::kBFloat16);
  EXPECT_TRUE(
      SameBits(Apply(linear, x), Apply(*Linear::Create({weight}, {}, KernelKind::kCpu), x)));
  EXPECT_EQ(linear.nbytes(), 64 * 24 * 2);  // 40 columns padded to two panels
}

TEST_P(LinearTest, AcceptsNoRows) {
  const Linear linear =
      Linear::Create({random_.Normal({4, 3}, at::kFloat)}, {}, KernelKind::kCpu).value();
  EXPECT_EQ(Apply(linear, at::empty({0, 3})).size(0), 0);
}

INSTANTIATE_TEST_SUITE_P(Isas, LinearTest, testing::ValuesIn(HostIsas()),
                         [](const auto& test) { return IsaName(test.param); });

TEST(LinearCreateTest, RejectsWhatDoesNotFit) {
  const at::Tensor a = at::zeros({4, 8}), b = at::zeros({4, 9});
  const at::Tensor half = at::zeros({4, 8}, at::TensorOptions().dtype(at::kBFloat16));
  const at::Tensor bias = at::zeros({4}), long_bias = at::zeros({5});
  for (const KernelKind kind : {KernelKind::kReference, KernelKind::kCpu}) {
    EXPECT_FALSE(Linear::Create({}, {}, kind).ok());
    EXPECT_FALSE(Linear::Create({a, b}, {}, kind).ok());
    EXPECT_FALSE(Linear::Create({a, half}, {}, kind).ok());
    EXPECT_FALSE(Linear::Create({bias}, {}, kind).ok());
    EXPECT_FALSE(Linear::Create({a}, {bias, bias}, kind).ok());
    EXPECT_FALSE(Linear::Create({a}, {long_bias}, kind).ok());
    EXPECT_TRUE(Linear::Create({a, a}, {bias, at::Tensor()}, kind).ok());
  }
  EXPECT_FALSE(Linear::Create({at::zeros({4, 8}, at::TensorOptions().dtype(at::kDouble))}, {},
                              KernelKind::kCpu)
                   .ok());
  EXPECT_FALSE(Linear::Create({a.t()}, {}, KernelKind::kCpu).ok());
}

TEST(LinearCreateTest, ForwardThrowsOnWrongShape) {
  for (const KernelKind kind : {KernelKind::kReference, KernelKind::kCpu}) {
    const Linear linear = Linear::Create({at::zeros({4, 8})}, {}, kind).value();
    EXPECT_THROW(linear.Forward(at::zeros({2, 7}), at::zeros({2, 4})), c10::Error);
    EXPECT_THROW(linear.Forward(at::zeros({2, 8}), at::zeros({2, 5})), c10::Error);
    EXPECT_THROW(linear.Forward(at::zeros({2, 8}), at::zeros({3, 4})), c10::Error);
  }
}

}  // namespace
}  // namespace tenon
