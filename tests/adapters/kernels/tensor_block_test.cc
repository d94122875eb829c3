#include "adapters/kernels/tensor_block.h"

#include <c10/util/Exception.h>

#include <cstdint>
#include <vector>

#include "tests/adapters/kernels/kernel_testing.h"

namespace tenon {
namespace {

uintptr_t Address(const at::Tensor& tensor) {
  return reinterpret_cast<uintptr_t>(tensor.const_data_ptr());
}

TEST(TensorBlockTest, HoldsTensorsOneBehindTheOtherOnCacheLines) {
  RandomTensors random(7);
  const std::vector<at::Tensor> tensors = {random.Normal({3, 5}, at::kFloat),
                                           random.Normal({7}, at::kBFloat16),
                                           random.Normal({2, 16, 4}, at::kBFloat16)};
  int64_t bytes = 0;
  for (const at::Tensor& tensor : tensors) {
    bytes += TensorBlock::BytesOf(tensor);
  }
  EXPECT_EQ(bytes, 64 + 64 + 256);
  std::vector<at::Tensor> placed;
  {
    TensorBlock block(bytes);
    for (const at::Tensor& tensor : tensors) {
      placed.push_back(block.Place(tensor));
    }
    EXPECT_THROW(block.Place(random.Normal({1}, at::kFloat)), c10::Error);
  }
  // They keep the memory.
  for (size_t i = 0; i < tensors.size(); ++i) {
    EXPECT_TRUE(SameBits(placed[i], tensors[i])) << i;
    EXPECT_EQ(Address(placed[i]) % 64, 0u) << i;
  }
  EXPECT_EQ(Address(placed[1]), Address(placed[0]) + 64);
  EXPECT_EQ(Address(placed[2]), Address(placed[1]) + 64);
}

TEST(TensorBlockTest, BeginsWhereALargePageMayWhenItFillsOne) {
  constexpr int64_t kLargePage = 2 << 20;
  TensorBlock block(kLargePage);
  RandomTensors random(8);
  EXPECT_EQ(Address(block.Place(random.Normal({1}, at::kFloat))) % kLargePage, 0u);
}

TEST(TensorBlockTest, RefusesAViewThatIsNotContiguous) {
  RandomTensors random(9);
  TensorBlock block(4096);
  EXPECT_THROW(block.Place(random.Normal({4, 4}, at::kFloat).t()), c10::Error);
}

}  // namespace
}  // namespace tenon
