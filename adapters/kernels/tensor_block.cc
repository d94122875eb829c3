#include "adapters/kernels/tensor_block.h"

#include <ATen/ops/from_blob.h>
#include <c10/util/Exception.h>

#include <cstdlib>

#include "adapters/kernels/huge_pages.h"

namespace tenon {
namespace {

constexpr int64_t kLine = 64;
constexpr int64_t kLargePage = int64_t{2} << 20;

int64_t RoundUp(int64_t bytes, int64_t unit) { return (bytes + unit - 1) / unit * unit; }

// Small blocks do not fill a large page, and do not look for the beginning of one.
at::Tensor Allocate(int64_t bytes) {
  const int64_t alignment = bytes < kLargePage ? kLine : kLargePage;
  const int64_t size = RoundUp(bytes, kLine);
  void* const memory = std::aligned_alloc(static_cast<size_t>(alignment),
                                          static_cast<size_t>(RoundUp(size, alignment)));
  TORCH_CHECK(memory != nullptr, "no memory for a block of ", size, " bytes");
  return at::from_blob(
      memory, {size}, [](void* block) { std::free(block); }, at::TensorOptions().dtype(at::kByte));
}

}  // namespace

int64_t TensorBlock::BytesOf(const at::Tensor& tensor) {
  return RoundUp(static_cast<int64_t>(tensor.nbytes()), kLine);
}

TensorBlock::TensorBlock(int64_t bytes) : bytes_(Allocate(bytes)) { AdviseHugePages(bytes_); }

at::Tensor TensorBlock::Place(const at::Tensor& tensor) {
  const auto size = static_cast<int64_t>(tensor.nbytes());
  TORCH_CHECK(tensor.device().is_cpu() && tensor.is_contiguous(),
              "a block holds contiguous tensors on the CPU");
  TORCH_CHECK(used_ + size <= bytes_.numel(), "a block of ", bytes_.numel(), " bytes, of which ",
              used_, " are used, has no room for ", size);
  const at::Tensor placed =
      bytes_.narrow(0, used_, size).view(tensor.scalar_type()).view(tensor.sizes());
  placed.copy_(tensor);
  used_ += RoundUp(size, kLine);
  return placed;
}

}  // namespace tenon
