// Tests of what the product's tests do not reach: the single kernels, and which are chosen.
#include "adapters/kernels/gemm_kernels.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "adapters/kernels/packed_matrix.h"
#include "tests/adapters/kernels/kernel_testing.h"

namespace tenon {
namespace {

class GemmKernelsTest : public testing::TestWithParam<CpuIsa> {
 protected:
  GemmKernelsTest() : isa_(GetParam()) {}

  ScopedCpuIsa isa_;
  RandomTensors random_{53};
};

uint16_t Bf16Bits(float x) {
  const at::Tensor half = at::empty({1}).fill_(x).to(at::kBFloat16);
  return *static_cast<const uint16_t*>(half.const_data_ptr());
}

TEST_P(GemmKernelsTest, StoreRoundsToNearestEvenAsLibTorchDoes) {
  std::vector<float> values = {0.0f,       -0.0f,    1.0f,   1.00390625f, 1.01171875f,
                               1.0039063f, 3.4e38f,  1e-40f, -1e-45f,     INFINITY,
                               -INFINITY,  65504.0f, 0.1f,   -7.77f};
  for (int i = 0; i < 300; ++i) {
    values.push_back(std::ldexp(static_cast<float>(random_.Between(-(1 << 24), 1 << 24)),
                                static_cast<int>(random_.Between(-60, 60))));
  }
  std::vector<uint16_t> stored(values.size());
  TileStore<uint16_t> store;
  store.tile = values.data();
  store.rows = 1;
  store.columns = static_cast<int64_t>(values.size());
  store.tile_stride = store.y_stride = store.columns;
  store.y = stored.data();
  ActiveGemmKernels().store_bf16(store);
  for (size_t i = 0; i < values.size(); ++i) {
    EXPECT_EQ(stored[i], Bf16Bits(values[i])) << values[i];
  }
}

TEST_P(GemmKernelsTest, StoreKeepsNan) {
  const float nan[] = {std::numeric_limits<float>::quiet_NaN(),
                       -std::numeric_limits<float>::quiet_NaN()};
  uint16_t stored[2] = {};
  TileStore<uint16_t> store;
  store.tile = nan;
  store.rows = 1;
  store.columns = store.tile_stride = store.y_stride = 2;
  store.y = stored;
  ActiveGemmKernels().store_bf16(store);
  EXPECT_GT(stored[0] & 0x7fff, 0x7f80);
  EXPECT_GT(stored[1] & 0x7fff, 0x7f80);
}

TEST_P(GemmKernelsTest, WidenIsExactAtAnyLength) {
  for (int64_t n = 1; n <= 70; ++n) {
    const at::Tensor x = random_.Normal({n}, at::kBFloat16);
    const at::Tensor y = at::empty({n});
    ActiveGemmKernels().widen(static_cast<const uint16_t*>(x.const_data_ptr()), n,
                              y.mutable_data_ptr<float>());
    EXPECT_TRUE(SameBits(y, x.to(at::kFloat))) << n;
  }
}

TEST_P(GemmKernelsTest, DotProductsMatchDoubleAndIgnoreTheBlocking) {
  for (const int64_t k : {1, 15, 16, 33, 200}) {
    const at::Tensor x = random_.Normal({9, k}, at::kBFloat16);
    const at::Tensor w = random_.Normal({11, k}, at::kBFloat16);
    const at::Tensor all = at::empty({9, 11}), one = at::empty({1, 1});
    const auto* x_data = static_cast<const uint16_t*>(x.const_data_ptr());
    const auto* w_data = static_cast<const uint16_t*>(w.const_data_ptr());
    ActiveGemmKernels().dot_bf16(x_data, k, 9, w_data, k, 11, k, all.mutable_data_ptr<float>(), 11);
    EXPECT_LT(WorstError(all, x.to(at::kDouble).matmul(w.to(at::kDouble).t()),
                         std::sqrt(static_cast<double>(k))),
              2e-6);
    for (int64_t r = 0; r < 9; ++r) {
      for (int64_t c = 0; c < 11; ++c) {
        ActiveGemmKernels().dot_bf16(x_data + r * k, k, 1, w_data + c * k, k, 1, k,
                                     one.mutable_data_ptr<float>(), 1);
        EXPECT_TRUE(SameBits(one, all.narrow(0, r, 1).narrow(1, c, 1))) << r << ", " << c;
      }
    }
  }
}

// Few rows may take other instructions than many: their sums must not show it.
TEST_P(GemmKernelsTest, ExpandGivesARowTheSameBitsAmongAnyNumberOfOthers) {
  constexpr int64_t kColumns = 2 * kPanelColumns;
  const GemmKernels& kernels = ActiveGemmKernels();
  const int64_t rows = kernels.tile_rows;
  // The smallest make products and sums that are not normal numbers.
  for (const float deviation : {1.0f, 1e-19f}) {
    for (const int64_t rank : {1, 2, 7, 16, 31, 32, 33, 64, 300}) {
      const at::Tensor up = random_.Normal({kColumns, rank}, at::kBFloat16, deviation);
      const at::Tensor shrunk = random_.Normal({rows, rank}, at::kFloat, deviation);
      const at::Tensor before = random_.Normal({rows, kColumns}, at::kFloat, deviation * deviation);
      const PackedMatrix packed = *PackedMatrix::Pack({&up, 1});
      const auto expand = [&](const at::Tensor& tile, int64_t begin, int64_t end) {
        kernels.expand_bf16(shrunk.const_data_ptr<float>() + begin * rank, end - begin,
                            static_cast<const uint16_t*>(packed.panels().const_data_ptr()),
                            packed.panel_stride(), packed.num_panels(), rank, 0.37f,
                            tile.mutable_data_ptr<float>() + begin * kColumns, kColumns);
      };
      const at::Tensor together = before.clone();
      expand(together, 0, rows);
      if (deviation == 1.0f) {
        const at::Tensor sums = shrunk.to(at::kDouble).matmul(up.to(at::kDouble).t()).mul(0.37);
        EXPECT_LT(WorstError(together, sums.add(before), std::sqrt(static_cast<double>(rank))),
                  1e-4);
      }
      for (int64_t at_once = 1; at_once < rows; ++at_once) {
        const at::Tensor apart = before.clone();
        for (int64_t begin = 0; begin < rows; begin += at_once) {
          expand(apart, begin, std::min(rows, begin + at_once));
        }
        EXPECT_TRUE(SameBits(apart, together)) << rank << " ranks, " << at_once << " rows at once";
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Isas, GemmKernelsTest, testing::ValuesIn(HostIsas()),
                         [](const auto& test) { return IsaName(test.param); });

TEST(ScopedCpuIsaTest, ChoosesAndRestores) {
  const CpuIsa before = ActiveIsa();
  EXPECT_LE(before, HostIsa());
  {
    const ScopedCpuIsa portable(CpuIsa::kPortable);
    EXPECT_EQ(ActiveIsa(), CpuIsa::kPortable);
    EXPECT_EQ(&ActiveGemmKernels(), &kGemmPortable);
    {
      const ScopedCpuIsa most(CpuIsa::kAmx);
      EXPECT_EQ(ActiveIsa(), HostIsa());
    }
    EXPECT_EQ(ActiveIsa(), CpuIsa::kPortable);
  }
  EXPECT_EQ(ActiveIsa(), before);
}

}  // namespace
}  // namespace tenon
