#include "server/model/merged_weights.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>

#include <exception>
#include <new>
#include <utility>

#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"
#include "adapters/kernels/device.h"
#include "adapters/kernels/packed_matrix.h"
#include "adapters/kernels/serial_scope.h"
#include "server/model/decoder.h"

namespace tenon {
namespace {

constexpr Site kLinearSites[] = {Site::kQ, Site::kK,    Site::kV,  Site::kQkv,
                                 Site::kO, Site::kGate, Site::kUp, Site::kDown};

// One adapter's delta at one site, and where that is.
struct Part {
  LinearPart where;
  const SiteDelta* delta;
  float weight;
};

// What the adapters do to one matrix of a rank, in the order of the selection.
std::vector<Part> PartsOf(const Decoder& decoder, std::span<const ResolvedAdapter> adapters,
                          int64_t layer, LinearKind kind) {
  std::vector<Part> parts;
  for (const Site site : kLinearSites) {
    for (const ResolvedAdapter& resolved : adapters) {
      const SiteDelta* const delta = resolved.adapter->OfRank(decoder.rank()).delta(layer, site);
      if (delta == nullptr || resolved.weight == 0.0f) {
        continue;
      }
      if (const LinearPart where = PartOf(site, decoder.config()); where.kind == kind) {
        parts.push_back({where, delta, resolved.weight});
      }
    }
  }
  return parts;
}

// up @ down [out, in] fp32, without scaling and request's weight.
absl::StatusOr<at::Tensor> Product(const LowRankDelta& delta) {
  const at::Tensor up = delta.UpMatrix().to(at::kFloat);
  if (delta.dense()) {
    return up;
  }
  if (!up.is_cpu()) {
    return at::matmul(up, delta.DownMatrix().to(at::kFloat));
  }
  const at::Tensor transposed = delta.DownMatrix().to(at::kFloat).t().contiguous();
  TENON_ASSIGN_OR_RETURN(const PackedMatrix down, PackedMatrix::Pack({&transposed, 1}));
  const at::Tensor product = at::empty({up.size(0), transposed.size(0)});
  down.Multiply(up, at::Tensor(), product);
  return product;
}

// A stacked W as fp32 and its bias, to be changed in place.
class Accumulator {
 public:
  explicit Accumulator(const Linear& base)
      : weight_(base.Weight().to(at::kFloat, /*non_blocking=*/false, /*copy=*/true)),
        bias_(base.bias().defined()
                  ? base.bias().to(at::kFloat, /*non_blocking=*/false, /*copy=*/true)
                  : at::zeros({base.out_features()}, weight_.options())),
        has_bias_(base.bias().defined()) {}

  // Gains multiply the base's weights, so that they come before what is added.
  absl::Status Apply(std::span<const Part> parts) {
    ScaleRows(parts);
    ScaleColumns(parts);
    for (const Part& part : parts) {
      const LowRankDelta& low_rank = part.delta->low_rank;
      if (low_rank.defined()) {
        TENON_ASSIGN_OR_RETURN(const at::Tensor product, Product(low_rank));
        weight_.narrow(0, part.where.row_begin, part.where.num_rows)
            .add_(product, part.weight * low_rank.scaling);
      }
      if (part.delta->offset.defined()) {
        bias_.narrow(0, part.where.row_begin, part.where.num_rows)
            .add_(part.delta->offset, part.weight);
        has_bias_ = true;
      }
    }
    return absl::OkStatus();
  }

  absl::StatusOr<Linear> Finish(const Linear& base, KernelKind kernels) {
    std::vector<at::Tensor> biases;
    if (has_bias_) {
      biases.push_back(std::move(bias_));
    }
    return Linear::Create({weight_.to(base.dtype())}, std::move(biases), kernels);
  }

 private:
  void ScaleRows(std::span<const Part> parts) {
    at::Tensor factors;
    for (const Part& part : parts) {
      if (part.delta->output_gain.defined()) {
        factors = factors.defined() ? factors : at::ones({weight_.size(0)}, weight_.options());
        factors.narrow(0, part.where.row_begin, part.where.num_rows)
            .add_(part.delta->output_gain, part.weight);
      }
    }
    if (factors.defined()) {
      weight_.mul_(factors.unsqueeze(1));
      bias_.mul_(factors);
    }
  }

  // Only matrices of one site have an input gain: its part is all rows.
  void ScaleColumns(std::span<const Part> parts) {
    at::Tensor factors;
    for (const Part& part : parts) {
      if (part.delta->input_gain.defined()) {
        factors = factors.defined() ? factors : at::ones({weight_.size(1)}, weight_.options());
        factors.add_(part.delta->input_gain, part.weight);
      }
    }
    if (factors.defined()) {
      weight_.mul_(factors);
    }
  }

  at::Tensor weight_;  // [out, in] fp32
  at::Tensor bias_;    // [out] fp32, zeros when there is none
  bool has_bias_;
};

int64_t DeltaMacs(const LowRankDelta& delta) {
  return delta.dense() ? delta.in_features() * delta.out_features()
                       : delta.rank() * (delta.in_features() + delta.out_features());
}

}  // namespace

LinearPart PartOf(Site site, const ModelConfig& config) {
  const int64_t q = config.q_size(), kv = config.kv_size(), inner = config.intermediate_size;
  switch (site) {
    case Site::kQ:
      return {LinearKind::kQkv, 0, q};
    case Site::kK:
      return {LinearKind::kQkv, q, kv};
    case Site::kV:
      return {LinearKind::kQkv, q + kv, kv};
    case Site::kQkv:
      return {LinearKind::kQkv, 0, q + 2 * kv};
    case Site::kO:
      return {LinearKind::kO, 0, config.hidden_size};
    case Site::kGate:
      return {LinearKind::kGateUp, 0, inner};
    case Site::kUp:
      return {LinearKind::kGateUp, config.is_gated() ? inner : 0, inner};
    default:
      return {LinearKind::kDown, 0, config.hidden_size};
  }
}

MergeFacts MergedWeights::Measure(const Decoder& decoder,
                                  std::span<const ResolvedAdapter> adapters) {
  MergeFacts facts;
  const int64_t num_layers = decoder.config().num_layers;
  for (int64_t i = 0; i < decoder.num_ranks() * num_layers * kNumLinearKinds; ++i) {
    const Decoder& part = decoder.OfRank(i / kNumLinearKinds / num_layers);
    const int64_t layer = i / kNumLinearKinds % num_layers;
    const auto kind = static_cast<LinearKind>(i % kNumLinearKinds);
    const std::vector<Part> parts = PartsOf(part, adapters, layer, kind);
    if (parts.empty()) {
      continue;
    }
    ++facts.num_linears;
    facts.nbytes += part.linear(layer, kind).nbytes();
    for (const Part& delta : parts) {
      ++facts.num_deltas;
      facts.delta_bytes += delta.delta->nbytes();
      facts.delta_macs += delta.delta->low_rank.defined() ? DeltaMacs(delta.delta->low_rank) : 0;
    }
  }
  return facts;
}

absl::Status MergedWeights::MergeLayer(const Decoder& decoder,
                                       std::span<const ResolvedAdapter> adapters, int64_t layer) {
  for (int kind = 0; kind < kNumLinearKinds; ++kind) {
    const std::vector<Part> parts =
        PartsOf(decoder, adapters, layer, static_cast<LinearKind>(kind));
    if (parts.empty()) {
      continue;
    }
    const Linear& base = decoder.linear(layer, static_cast<LinearKind>(kind));
    Accumulator accumulator(base);
    TENON_RETURN_IF_ERROR(accumulator.Apply(parts));
    TENON_ASSIGN_OR_RETURN(ranks_[decoder.rank()][layer][kind],
                           accumulator.Finish(base, decoder.options().kernels));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<const MergedWeights>> MergedWeights::Merge(
    const Decoder& decoder, std::span<const ResolvedAdapter> adapters,
    const std::function<bool()>& cancelled) {
  const int64_t num_layers = decoder.config().num_layers;
  std::unique_ptr<MergedWeights> merged(new MergedWeights(decoder.num_ranks(), num_layers));
  merged->facts_ = Measure(decoder, adapters);
  if (merged->facts_.num_linears == 0) {
    return PreconditionError("NOTHING_TO_MERGE", "adapter",
                             "the adapter changes no linear layer, so that merging it would save "
                             "nothing");
  }
  const SerialScope serial;  // the other threads are the engine's
  try {
    const c10::InferenceMode inference_mode;
    for (int64_t i = 0; i < decoder.num_ranks() * num_layers; ++i) {
      if (cancelled()) {
        return absl::CancelledError("the merge was cancelled");
      }
      TENON_RETURN_IF_ERROR(
          merged->MergeLayer(decoder.OfRank(i / num_layers), adapters, i % num_layers));
    }
    WaitForStream(decoder.options().device);  // the engine reads it on a stream of its own
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError("no memory for merged weights");
  } catch (const c10::Error& error) {
    return absl::InternalError(absl::StrCat("merge: ", error.what_without_backtrace()));
  } catch (const std::exception& error) {
    return absl::InternalError(absl::StrCat("merge: ", error.what()));
  }
  return merged;
}

}  // namespace tenon
