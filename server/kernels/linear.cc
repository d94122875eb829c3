#include "server/kernels/linear.h"

#include <ATen/ops/addmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "adapters/base/status_macros.h"
#include "adapters/kernels/parallel.h"

namespace tenon {
namespace {

absl::Status CheckWeights(const std::vector<at::Tensor>& weights,
                          const std::vector<at::Tensor>& biases) {
  if (weights.empty()) {
    return absl::InvalidArgumentError("a linear layer needs at least one weight");
  }
  if (!biases.empty() && biases.size() != weights.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat(biases.size(), " biases for ", weights.size(), " weights"));
  }
  for (size_t i = 0; i < weights.size(); ++i) {
    const at::Tensor& weight = weights[i];
    if (!weight.defined() || weight.dim() != 2 || weight.size(1) != weights[0].size(1) ||
        weight.scalar_type() != weights[0].scalar_type()) {
      return absl::InvalidArgumentError(
          absl::StrCat("weight ", i, " is not a matrix of the first one's inputs and dtype"));
    }
    if (!biases.empty() && biases[i].defined() &&
        (biases[i].dim() != 1 || biases[i].size(0) != weight.size(0))) {
      return absl::InvalidArgumentError(
          absl::StrCat("bias ", i, " is not a vector of ", weight.size(0), " elements"));
    }
  }
  return absl::OkStatus();
}

// All biases as one vector of `dtype`, zeros where one is missing; undefined when there is none.
at::Tensor StackBiases(const std::vector<at::Tensor>& weights,
                       const std::vector<at::Tensor>& biases, at::ScalarType dtype) {
  std::vector<at::Tensor> parts;
  bool any = false;
  for (size_t i = 0; i < biases.size(); ++i) {
    any |= biases[i].defined();
    parts.push_back(biases[i].defined()
                        ? biases[i].to(dtype)
                        : at::zeros({weights[i].size(0)}, weights[i].options().dtype(dtype)));
  }
  return any ? at::cat(parts) : at::Tensor();
}

}  // namespace

absl::StatusOr<Linear> Linear::Create(std::vector<at::Tensor> weights,
                                      std::vector<at::Tensor> biases, KernelKind kind,
                                      WeightFormat format) {
  TENON_RETURN_IF_ERROR(CheckWeights(weights, biases));
  Linear linear;
  linear.dtype_ = weights[0].scalar_type();
  linear.in_features_ = weights[0].size(1);
  for (const at::Tensor& weight : weights) {
    linear.out_features_ += weight.size(0);
  }
  if (format == WeightFormat::kInt8) {
    if (kind != KernelKind::kCpu) {
      return absl::InvalidArgumentError("int8 weights need the CPU's kernels");
    }
    TENON_ASSIGN_OR_RETURN(QuantizedMatrix quantized, QuantizedMatrix::Quantize(weights));
    linear.quantized_ = std::make_shared<const QuantizedMatrix>(std::move(quantized));
    linear.bias_ = StackBiases(weights, biases, at::kFloat);
  } else if (kind == KernelKind::kCpu) {
    TENON_ASSIGN_OR_RETURN(PackedMatrix packed, PackedMatrix::Pack(weights));
    linear.packed_ = std::make_shared<const PackedMatrix>(std::move(packed));
    linear.bias_ = StackBiases(weights, biases, at::kFloat);
  } else {
    linear.weight_ = weights.size() == 1 ? weights[0] : at::cat(weights);
    linear.bias_ = StackBiases(weights, biases, linear.dtype_);
  }
  return linear;
}

void Linear::Forward(const at::Tensor& x, const at::Tensor& y, const ProductUpdates& updates,
                     int64_t first_row) const {
  if (packed_ != nullptr) {
    packed_->Multiply(x, bias_, y, updates, first_row);
    return;
  }
  if (quantized_ != nullptr) {
    quantized_->Multiply(x, bias_, y, updates, first_row);
    return;
  }
  TORCH_CHECK(updates.panels.empty(), "linear: only the CPU's kernels take updates with a product");
  TORCH_CHECK(y.dim() == 2 && y.size(0) == x.size(0) && y.size(1) == out_features_,
              "linear: y has shape ", y.sizes(), ", want [", x.size(0), ", ", out_features_, "]");
  at::Tensor out = y;
  if (bias_.defined()) {
    at::addmm_out(out, bias_, x, weight_.t());
  } else {
    at::mm_out(out, x, weight_.t());
  }
}

void Linear::FetchWhileIdle() const {
  if (packed_ == nullptr && quantized_ == nullptr) {
    return;
  }
  const at::Tensor& panels = packed_ != nullptr ? packed_->panels() : quantized_->panels();
  tenon::FetchWhileIdle(panels.const_data_ptr(), static_cast<int64_t>(panels.nbytes()));
}

at::Tensor Linear::Rows(const at::Tensor& index) const {
  if (quantized_ != nullptr) {
    return quantized_->Rows(index);
  }
  return packed_ != nullptr ? packed_->Rows(index) : at::index_select(weight_, 0, index);
}

at::Tensor Linear::Weight() const {
  if (quantized_ != nullptr) {
    return quantized_->Unpack();
  }
  return packed_ != nullptr ? packed_->Unpack() : weight_;
}

int64_t Linear::nbytes() const {
  int64_t bytes = packed_ != nullptr ? packed_->nbytes() : 0;
  bytes += quantized_ != nullptr ? quantized_->nbytes() : 0;
  bytes += weight_.defined() ? static_cast<int64_t>(weight_.nbytes()) : 0;
  return bytes + (bias_.defined() ? static_cast<int64_t>(bias_.nbytes()) : 0);
}

}  // namespace tenon
