#include "adapters/kernels/affine.h"

#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <c10/util/Exception.h>

#include <vector>

#include "tests/adapters/kernels/kernel_testing.h"

namespace tenon {
namespace {

constexpr at::ScalarType kTypes[] = {at::kFloat, at::kBFloat16};

TEST(ApplyAffineReferenceTest, ComputesTheEquation) {
  const at::Tensor y = at::tensor(std::vector<float>{1, 2, 3, 4}).view({2, 2});
  const AffinePart parts[] = {
      {at::tensor(std::vector<float>{1, -1}), at::tensor(std::vector<float>{10, 0}), 0.5f},
      {{}, at::tensor(std::vector<float>{0, 1}), 2.0f}};
  ApplyAffineReference(1, 2, parts, y);
  // 3 * (1 + 0.5) + 5 and 4 * (1 - 0.5) + 2
  EXPECT_TRUE(SameBits(y, at::tensor(std::vector<float>{1, 2, 9.5f, 4}).view({2, 2})));
}

TEST(ApplyAffineTest, MatchesReferenceOnColumnSlices) {
  RandomTensors random(7);
  for (int round = 0; round < 30; ++round) {
    for (const at::ScalarType dtype : kTypes) {
      const int64_t rows = random.Between(1, 40), columns = random.Between(1, 90);
      const int64_t begin = random.Between(0, rows), end = random.Between(begin, rows);
      std::vector<AffinePart> parts;
      for (int64_t i = random.Between(1, 3); i > 0; --i) {
        parts.push_back({i == 2 ? at::Tensor() : random.Normal({columns}, at::kFloat, 0.3f),
                         i == 1 ? at::Tensor() : random.Normal({columns}, at::kFloat), 0.5f * i});
      }
      const at::Tensor wide = random.Normal({rows, columns + 9}, dtype);
      const at::Tensor y = wide.narrow(1, 4, columns), expected = wide.clone();
      ApplyAffineReference(begin, end, parts, expected.narrow(1, 4, columns));
      ApplyAffine(begin, end, parts, y);
      EXPECT_LT(WorstError(wide, expected), 4 * RoundingError(dtype)) << dtype << round;
      EXPECT_TRUE(SameBits(wide.narrow(1, 0, 4), expected.narrow(1, 0, 4)));
      EXPECT_TRUE(SameBits(wide.narrow(0, 0, begin), expected.narrow(0, 0, begin)));
      EXPECT_TRUE(SameBits(wide.narrow(0, end, rows - end), expected.narrow(0, end, rows - end)));
    }
  }
}

TEST(ApplyAffineTest, RowHasTheSameBitsInAnyBatch) {
  RandomTensors random(8);
  for (const at::ScalarType dtype : kTypes) {
    const AffinePart part = {random.Normal({77}, at::kFloat), random.Normal({77}, at::kFloat),
                             0.7f};
    const at::Tensor many = random.Normal({50, 77}, dtype), before = many.clone();
    ApplyAffine(0, 50, {&part, 1}, many);
    for (int64_t row = 0; row < 50; ++row) {
      const at::Tensor alone = before.narrow(0, row, 1).clone();
      ApplyAffine(0, 1, {&part, 1}, alone);
      EXPECT_TRUE(SameBits(alone, many.narrow(0, row, 1))) << dtype << " row " << row;
    }
  }
}

TEST(ApplyAffineTest, ThrowsAndLeavesRowsOnMismatch) {
  const at::Tensor y = at::full({2, 3}, -0.0f), before = y.clone();
  const AffinePart narrow = {at::full({2}, 1.0f), {}, 1.0f};
  const AffinePart wrong_type = {at::full({3}, 1.0f).to(at::kBFloat16), {}, 1.0f};
  EXPECT_THROW(ApplyAffine(0, 2, {&narrow, 1}, y), c10::Error);
  EXPECT_THROW(ApplyAffine(0, 2, {&wrong_type, 1}, y), c10::Error);
  EXPECT_THROW(ApplyAffine(1, 3, {}, y), c10::Error);
  ApplyAffine(0, 2, {}, y);  // no parts: not even the sign of a zero changes
  EXPECT_TRUE(SameBits(y, before));
}

}  // namespace
}  // namespace tenon
