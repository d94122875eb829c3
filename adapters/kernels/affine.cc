#include "adapters/kernels/affine.h"

#include <ATen/TensorOperators.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Exception.h>

#include <vector>

#include "adapters/kernels/parallel.h"
#include "adapters/kernels/tensor_data.h"

namespace tenon {
namespace {

// sums += weight * values, when there are any.
void AddWeighted(const at::Tensor& values, float weight, std::vector<float>& sums) {
  if (!values.defined()) {
    return;
  }
  const float* const data = values.const_data_ptr<float>();
  for (size_t i = 0; i < sums.size(); ++i) {
    sums[i] += weight * data[i];
  }
}

void CheckVector(const at::Tensor& tensor, int64_t columns) {
  TORCH_CHECK(!tensor.defined() || (tensor.dim() == 1 && tensor.size(0) == columns &&
                                    tensor.scalar_type() == at::kFloat && tensor.is_contiguous()),
              "affine: a part is ", tensor.scalar_type(), " ", tensor.sizes(), ", want fp32 [",
              columns, "]");
}

template <typename T>
void ApplyRows(int64_t begin, int64_t end, const std::vector<float>& factor,
               const std::vector<float>& offset, const at::Tensor& y) {
  const auto columns = static_cast<int64_t>(factor.size());
  ParallelFor(end - begin, columns, [&](int64_t row) {
    T* const data = Data<T>(y) + (begin + row) * y.stride(0);
    const float* const scale = factor.data();
    const float* const shift = offset.data();
    for (int64_t i = 0; i < columns; ++i) {
      data[i] = static_cast<T>(static_cast<float>(data[i]) * scale[i] + shift[i]);
    }
  });
}

}  // namespace

void ApplyAffine(int64_t begin, int64_t end, std::span<const AffinePart> parts,
                 const at::Tensor& y) {
  TORCH_CHECK(y.dim() == 2 && 0 <= begin && begin <= end && end <= y.size(0) &&
                  (y.stride(1) == 1 || y.size(1) == 1) &&
                  (y.scalar_type() == at::kFloat || y.scalar_type() == at::kBFloat16),
              "affine: rows ", begin, " to ", end, " of ", y.scalar_type(), " ", y.sizes());
  if (parts.empty() || begin == end) {
    return;
  }
  std::vector<float> factor(static_cast<size_t>(y.size(1)), 1.0f);
  std::vector<float> offset(factor.size(), 0.0f);
  for (const AffinePart& part : parts) {
    CheckVector(part.gain, y.size(1));
    CheckVector(part.offset, y.size(1));
    AddWeighted(part.gain, part.weight, factor);
    AddWeighted(part.offset, part.weight, offset);
  }
  if (y.scalar_type() == at::kFloat) {
    ApplyRows<float>(begin, end, factor, offset, y);
  } else {
    ApplyRows<c10::BFloat16>(begin, end, factor, offset, y);
  }
}

void ApplyAffineReference(int64_t begin, int64_t end, std::span<const AffinePart> parts,
                          const at::Tensor& y) {
  if (parts.empty()) {
    return;
  }
  const at::Tensor rows = y.narrow(0, begin, end - begin);
  const at::Tensor before = rows.to(at::kFloat);
  at::Tensor sum = before;
  for (const AffinePart& part : parts) {
    sum = part.gain.defined() ? sum + before * (part.gain * part.weight) : sum;
    sum = part.offset.defined() ? sum + part.offset * part.weight : sum;
  }
  rows.copy_(sum);
}

}  // namespace tenon
