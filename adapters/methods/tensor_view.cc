#include "adapters/methods/tensor_view.h"

#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include <cstring>

namespace tenon {
namespace {

at::ScalarType ScalarTypeOf(DType dtype) {
  switch (dtype) {
    case DType::kF16:
      return at::kHalf;
    case DType::kBF16:
      return at::kBFloat16;
    default:  // F32: the formats layer admits no other
      return at::kFloat;
  }
}

}  // namespace

at::Tensor CopyToTensor(const TensorView& view, at::ScalarType dtype) {
  at::Tensor stored = at::empty(view.shape, at::dtype(ScalarTypeOf(view.dtype)));
  TORCH_CHECK(stored.nbytes() == view.bytes.size(), "tensor of dtype ", DTypeName(view.dtype));
  std::memcpy(stored.mutable_data_ptr(), view.bytes.data(), view.bytes.size());
  return stored.to(dtype);
}

}  // namespace tenon
