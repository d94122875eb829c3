// TensorBlock: small tensors that are read one after the other, in one piece of memory.
#ifndef TENON_ADAPTERS_KERNELS_TENSOR_BLOCK_H_
#define TENON_ADAPTERS_KERNELS_TENSOR_BLOCK_H_

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace tenon {

/// A block on the CPU with large pages where the kernel has some (see AdviseHugePages). It begins
/// where such a page may; tensors in it begin on cache lines, in the order in which they were
/// placed. Its memory lives as long as any of them.
class TensorBlock {
 public:
  /// What a tensor takes of a block.
  static int64_t BytesOf(const at::Tensor& tensor);

  /// Room for `bytes`.
  explicit TensorBlock(int64_t bytes);

  /// A copy in the block of a contiguous tensor on the CPU. Throws c10::Error when there is no room
  /// for it or when it is none such.
  at::Tensor Place(const at::Tensor& tensor);

 private:
  at::Tensor bytes_;  // uint8
  int64_t used_ = 0;
};

}  // namespace tenon

#endif  // TENON_ADAPTERS_KERNELS_TENSOR_BLOCK_H_
