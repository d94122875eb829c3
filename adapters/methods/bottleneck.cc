#include "adapters/methods/bottleneck.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"

namespace tenon {
namespace {

BottleneckActivation ActivationOf(Nonlinearity nonlinearity) {
  switch (nonlinearity) {
    case Nonlinearity::kRelu:
      return BottleneckActivation::kRelu;
    case Nonlinearity::kGelu:
      return BottleneckActivation::kGelu;
    case Nonlinearity::kGeluTanh:
      return BottleneckActivation::kGeluTanh;
    case Nonlinearity::kSilu:
      return BottleneckActivation::kSilu;
    case Nonlinearity::kTanh:
      return BottleneckActivation::kTanh;
    case Nonlinearity::kIdentity:
      return BottleneckActivation::kIdentity;
    case Nonlinearity::kLeakyRelu:
      return BottleneckActivation::kLeakyRelu;
  }
  return BottleneckActivation::kIdentity;
}

absl::Status Unsupported(absl::string_view why) {
  return PreconditionError("UNSUPPORTED", "config", why);
}

// The name of the base's post-norm of a sublayer, empty when it has none.
const std::string& PostNorm(const BaseShape& base, Sublayer sublayer) {
  return sublayer == Sublayer::kAttention ? base.post_attention_norm : base.post_feed_forward_norm;
}

absl::Status CheckCombination(const BottleneckSpec& spec, const BaseShape& base) {
  const bool post_norms = !base.post_attention_norm.empty();
  if (spec.residual_post_add && !spec.is_parallel && !(post_norms && spec.original_ln_before)) {
    return Unsupported(
        "residual_before_ln \"post_add\" needs original_ln_before and a base model with norms "
        "behind its sublayers");
  }
  if (!spec.original_ln_after && post_norms) {
    return Unsupported("original_ln_after is false, but the base model has norms there");
  }
  return absl::OkStatus();
}

// Where the module reads and what goes around it.
absl::Status Place(const BottleneckSpec& spec, Sublayer sublayer, AdapterBuilder& builder,
                   BottleneckDelta& delta) {
  const BaseShape& base = builder.base();
  delta.activation = ActivationOf(spec.nonlinearity);
  delta.drops_stream = !spec.original_ln_after;
  if (spec.is_parallel) {
    delta.input = BottleneckInput::kResidual;
    return absl::OkStatus();
  }
  delta.adds_residual_before_norm = spec.adapter_residual_before_ln;
  if (spec.residual_post_add) {
    delta.residual = BottleneckResidual::kOutputPlusResidual;
  } else if (!spec.residual_before_ln) {
    delta.residual = BottleneckResidual::kInput;
  }
  if (!spec.original_ln_before) {
    return absl::OkStatus();
  }
  delta.input = BottleneckInput::kOutputPlusResidual;
  if (const std::string& norm = PostNorm(base, sublayer); !norm.empty()) {
    for (const auto& [path, layer] : base.layers) {
      if (layer == base.num_layers - 1) {
        TENON_ASSIGN_OR_RETURN(const at::Tensor weight,
                               base.read_parameter(absl::StrCat(path, ".", norm, ".weight")));
        delta.input_norm = (weight + 1.0).contiguous();
        delta.input_norm_eps = static_cast<float>(base.norm_eps);
      }
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<PackedMatrix> ReadMatrix(const BottleneckModule& module, const TensorView& view,
                                        AdapterBuilder& builder) {
  TENON_ASSIGN_OR_RETURN(const at::Tensor matrix, builder.Cast(module.module, builder.Read(view)));
  return PackedMatrix::Pack({&matrix, 1});
}

absl::StatusOr<at::Tensor> ReadVector(const BottleneckModule& module, absl::string_view what,
                                      const TensorView& view, int64_t size,
                                      AdapterBuilder& builder) {
  at::Tensor vector = builder.Read(view).flatten().contiguous();
  TENON_RETURN_IF_ERROR(AdapterBuilder::CheckSize(module.module, what, vector.numel(), size));
  return vector;
}

absl::Status ReadNorm(const BottleneckModule& module, const std::optional<TensorView>& weight,
                      const std::optional<TensorView>& bias, AdapterBuilder& builder,
                      LayerNormWeights& norm) {
  if (!weight.has_value() || !bias.has_value()) {
    return absl::OkStatus();
  }
  const int64_t hidden = builder.base().hidden_size;
  TENON_ASSIGN_OR_RETURN(norm.weight,
                         ReadVector(module, "the size of a norm", *weight, hidden, builder));
  TENON_ASSIGN_OR_RETURN(norm.bias,
                         ReadVector(module, "the size of a norm", *bias, hidden, builder));
  return absl::OkStatus();
}

// The factor of each channel, [hidden].
absl::StatusOr<at::Tensor> ReadScale(const BottleneckSpec& spec, const BottleneckModule& module,
                                     AdapterBuilder& builder) {
  const int64_t hidden = builder.base().hidden_size;
  if (!module.learned_scaling.has_value()) {
    return at::full({hidden}, spec.scaling, at::TensorOptions(at::kFloat));
  }
  const at::Tensor learned = builder.Read(*module.learned_scaling).flatten();
  if (learned.numel() != 1) {
    TENON_RETURN_IF_ERROR(AdapterBuilder::CheckSize(module.module, "the size of the scaling",
                                                    learned.numel(), hidden));
  }
  return learned.expand({hidden}).contiguous();
}

absl::Status CompileModule(const BottleneckSpec& spec, const BottleneckModule& module,
                           AdapterBuilder& builder) {
  const int64_t hidden = builder.base().hidden_size;
  TENON_RETURN_IF_ERROR(AdapterBuilder::CheckSize(module.module, "the size of a bottleneck's input",
                                                  module.down.shape[1], hidden));
  TENON_RETURN_IF_ERROR(AdapterBuilder::CheckSize(
      module.module, "the size of a bottleneck's output", module.up.shape[0], hidden));
  BottleneckDelta delta;
  TENON_RETURN_IF_ERROR(Place(spec, module.sublayer, builder, delta));
  TENON_ASSIGN_OR_RETURN(delta.down, ReadMatrix(module, module.down, builder));
  TENON_ASSIGN_OR_RETURN(delta.up, ReadMatrix(module, module.up, builder));
  TENON_RETURN_IF_ERROR(AdapterBuilder::CheckSize(module.module, "the width of the up projection",
                                                  delta.up.in_features(), delta.width()));
  TENON_ASSIGN_OR_RETURN(delta.down_bias, ReadVector(module, "the size of a bias", module.down_bias,
                                                     delta.width(), builder));
  TENON_ASSIGN_OR_RETURN(delta.up_bias,
                         ReadVector(module, "the size of a bias", module.up_bias, hidden, builder));
  TENON_ASSIGN_OR_RETURN(delta.scale, ReadScale(spec, module, builder));
  TENON_RETURN_IF_ERROR(ReadNorm(module, module.norm_before_weight, module.norm_before_bias,
                                 builder, delta.norm_before));
  TENON_RETURN_IF_ERROR(ReadNorm(module, module.norm_after_weight, module.norm_after_bias, builder,
                                 delta.norm_after));
  return builder.SetBottleneck(module.module, module.sublayer, std::move(delta));
}

}  // namespace

absl::Status CompileBottlenecks(const BottleneckSpec& spec, AdapterBuilder& builder) {
  TENON_RETURN_IF_ERROR(CheckCombination(spec, builder.base()));
  for (const BottleneckModule& module : spec.modules) {
    TENON_RETURN_IF_ERROR(CompileModule(spec, module, builder));
  }
  return absl::OkStatus();
}

}  // namespace tenon
