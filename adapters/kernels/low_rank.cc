#include "adapters/kernels/low_rank.h"

namespace tenon {

void ApplyLowRank(const at::Tensor& x, std::span<const LowRankTerm> terms, const at::Tensor& y) {
  ApplyLowRankReference(x, terms, y);
}

}  // namespace tenon
