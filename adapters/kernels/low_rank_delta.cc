#include "adapters/kernels/low_rank_delta.h"

#include <ATen/ops/zeros.h>

#include <utility>

#include "absl/status/status.h"
#include "adapters/base/status_macros.h"
#include "adapters/kernels/gemm_kernels.h"
#include "adapters/kernels/tensor_data.h"

namespace tenon {
namespace {

// [ceil(in / 2), rank, 2] from [rank, in].
at::Tensor PackPairs(const at::Tensor& down) {
  const int64_t rank = down.size(0), in = down.size(1);
  const at::Tensor pairs = at::zeros({(in + 1) / 2, rank, 2}, down.options());
  const uint16_t* const source = Data<uint16_t>(down);
  uint16_t* const target = Data<uint16_t>(pairs);
  for (int64_t r = 0; r < rank; ++r) {
    for (int64_t i = 0; i < in; ++i) {
      target[(i / 2 * rank + r) * 2 + i % 2] = source[r * in + i];
    }
  }
  return pairs;
}

}  // namespace

absl::StatusOr<LowRankDelta> LowRankDelta::Create(at::Tensor down, const at::Tensor& up,
                                                  float scaling) {
  if (!down.defined() || !up.defined() || down.dim() != 2 || up.dim() != 2 ||
      down.size(0) != up.size(1) || down.scalar_type() != up.scalar_type() ||
      !down.is_contiguous() || !up.is_contiguous()) {
    return absl::InvalidArgumentError(
        "a low-rank delta needs down [rank, in] and up [out, rank] of one dtype, contiguous");
  }
  TENON_ASSIGN_OR_RETURN(LowRankDelta delta, CreateDense(up, scaling));
  if (down.scalar_type() == at::kBFloat16 && ActiveGemmKernels().pairs_bf16 != nullptr) {
    delta.num_inputs = down.size(1);
    delta.down_pairs = PackPairs(down);
  } else {
    delta.down = std::move(down);
  }
  return delta;
}

absl::StatusOr<LowRankDelta> LowRankDelta::CreateDense(const at::Tensor& matrix, float scaling) {
  LowRankDelta delta;
  TENON_ASSIGN_OR_RETURN(delta.packed_up, PackedMatrix::Pack({&matrix, 1}));
  delta.scaling = scaling;
  return delta;
}

LowRankDelta LowRankDelta::OnDevice(at::Device device) const {
  LowRankDelta moved;
  moved.scaling = scaling;
  if (!defined()) {
    return moved;
  }
  moved.down = dense() ? at::Tensor() : DownMatrix().to(device);
  moved.up = up.defined() ? up.to(device) : at::Tensor();
  moved.packed_up = packed_up.OnDevice(device);
  return moved;
}

void LowRankDelta::RelocateDown(absl::FunctionRef<at::Tensor(const at::Tensor&)> relocate) {
  for (at::Tensor* tensor : {&down, &down_pairs}) {
    if (tensor->defined()) {
      *tensor = relocate(*tensor);
    }
  }
}

void LowRankDelta::RelocateUp(absl::FunctionRef<at::Tensor(const at::Tensor&)> relocate) {
  if (up.defined()) {
    up = relocate(up);
  }
  if (packed_up.defined()) {
    packed_up.Relocate(relocate);
  }
}

int64_t LowRankDelta::nbytes() const {
  const auto bytes = [](const at::Tensor& tensor) {
    return tensor.defined() ? static_cast<int64_t>(tensor.nbytes()) : 0;
  };
  return bytes(down) + bytes(down_pairs) + bytes(up) + packed_up.nbytes();
}

at::Tensor LowRankDelta::DownMatrix() const {
  if (down.defined()) {
    return down;
  }
  return down_pairs.permute({1, 0, 2})
      .reshape({rank(), down_pairs.size(0) * 2})
      .narrow(1, 0, num_inputs)
      .contiguous();
}

}  // namespace tenon
