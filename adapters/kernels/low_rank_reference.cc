#include <ATen/TensorOperators.h>
#include <ATen/ops/matmul.h>

#include "adapters/kernels/low_rank.h"

namespace tenon {

void ApplyLowRankReference(const at::Tensor& x, std::span<const LowRankTerm> terms,
                           const at::Tensor& y) {
  for (const LowRankTerm& term : terms) {
    const int64_t rows = term.end - term.begin;
    if (rows == 0) {
      continue;
    }
    const at::Tensor input = x.narrow(0, term.begin, rows).to(at::kFloat);
    const at::Tensor output = y.narrow(0, term.begin, rows);
    const LowRankDelta& delta = *term.delta;
    const at::Tensor shrunk =
        delta.dense() ? input : at::matmul(input, delta.DownMatrix().to(at::kFloat).t());
    const at::Tensor expanded = at::matmul(shrunk, delta.UpMatrix().to(at::kFloat).t());
    output.copy_(output.to(at::kFloat) + expanded * (term.weight * delta.scaling));
  }
}

}  // namespace tenon
