#include "adapters/methods/adapter_builder.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/norm.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"
#include "adapters/methods/tensor_view.h"

namespace tenon {
namespace {

// Edits (insert, remove, replace a byte) between two names.
int64_t EditDistance(absl::string_view a, absl::string_view b) {
  std::vector<int64_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) {
    row[j] = static_cast<int64_t>(j);
  }
  for (size_t i = 1; i <= a.size(); ++i) {
    int64_t diagonal = std::exchange(row[0], static_cast<int64_t>(i));
    for (size_t j = 1; j <= b.size(); ++j) {
      const int64_t replace = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, replace});
    }
  }
  return row.back();
}

std::string NearestModule(const BaseShape& base, absl::string_view module) {
  std::pair<int64_t, absl::string_view> best = {std::numeric_limits<int64_t>::max(), ""};
  for (const auto& [known, shape] : base.modules) {
    best = std::min(best, std::make_pair(EditDistance(module, known), absl::string_view(known)));
  }
  return std::string(best.second);
}

absl::Status UnknownModule(const BaseShape& base, absl::string_view module) {
  return PreconditionError(
      "UNKNOWN_MODULE", module,
      absl::StrCat("module ", Quoted(module), " cannot be adapted in the base model (",
                   base.model_type, ", ", base.num_layers, " layers); the nearest that can is ",
                   Quoted(NearestModule(base, module))));
}

bool IsNorm(Site site) {
  return site == Site::kAttentionNorm || site == Site::kFeedForwardNorm || site == Site::kFinalNorm;
}

// Whether nothing but this layer reads its input.
bool HasOwnInput(Site site) { return site == Site::kO || site == Site::kDown; }

void Accumulate(at::Tensor& sum, const at::Tensor& values) {
  sum = sum.defined() ? sum + values : values.contiguous();
}

}  // namespace

double Norm(const at::Tensor& tensor) { return at::norm(tensor, 2, at::kFloat).item<double>(); }

AdapterBuilder::AdapterBuilder(const BaseShape& base, at::ScalarType dtype, CompileReport* report)
    : base_(base),
      dtype_(dtype),
      report_(report),
      adapter_(std::make_shared<CompiledAdapter>(base.num_layers)) {}

absl::StatusOr<Target> AdapterBuilder::Find(const std::string& module) const {
  const auto found = base_.modules.find(module);
  if (found == base_.modules.end()) {
    return UnknownModule(base_, module);
  }
  return Target{module, found->second};
}

absl::Status AdapterBuilder::CheckFeatures(const Target& target, int64_t in, int64_t out) const {
  const SiteShape& shape = target.shape;
  if (shape.in_features == in && shape.out_features == out) {
    return absl::OkStatus();
  }
  return PreconditionError("SHAPE_MISMATCH", target.module,
                           absl::StrCat("module ", Quoted(target.module), " maps ", in, " to ", out,
                                        " features in the adapter, but ", shape.in_features, " to ",
                                        shape.out_features, " in the base model"));
}

absl::StatusOr<Target> AdapterBuilder::FindLinearOrEmbedding(const std::string& module, int64_t in,
                                                             int64_t out) const {
  TENON_ASSIGN_OR_RETURN(Target target, Find(module));
  if (IsNorm(target.shape.site)) {
    return PreconditionError(
        "UNKNOWN_MODULE", module,
        absl::StrCat("module ", Quoted(module), " is a norm: only its bias can be adapted"));
  }
  TENON_RETURN_IF_ERROR(CheckFeatures(target, in, out));
  return target;
}

absl::StatusOr<Target> AdapterBuilder::FindLinear(const std::string& module, int64_t in,
                                                  int64_t out) const {
  TENON_ASSIGN_OR_RETURN(const Target target, Find(module));
  if (target.shape.site == Site::kEmbedding) {
    return PreconditionError(
        "UNKNOWN_MODULE", module,
        absl::StrCat("module ", Quoted(module), " is an embedding: this method cannot adapt it"));
  }
  return FindLinearOrEmbedding(module, in, out);
}

absl::Status AdapterBuilder::CheckSize(absl::string_view module, absl::string_view what,
                                       int64_t actual, int64_t wanted) {
  if (actual == wanted) {
    return absl::OkStatus();
  }
  return PreconditionError("SHAPE_MISMATCH", module,
                           absl::StrCat("module ", Quoted(module), ": ", what, " is ", actual,
                                        " in the adapter, but ", wanted, " in the base model"));
}

at::Tensor AdapterBuilder::Read(const TensorView& view) {
  at::Tensor tensor = CopyToTensor(view, at::kFloat);
  report_->num_parameters += tensor.numel();
  return tensor;
}

absl::StatusOr<at::Tensor> AdapterBuilder::BaseWeight(const Target& target) const {
  TENON_ASSIGN_OR_RETURN(const at::Tensor weight,
                         base_.read_parameter(absl::StrCat(target.module, ".weight")));
  return target.shape.site == Site::kEmbedding ? weight.t() : weight;
}

absl::StatusOr<at::Tensor> AdapterBuilder::BaseBias(const Target& target) const {
  absl::StatusOr<at::Tensor> bias = base_.read_parameter(absl::StrCat(target.module, ".bias"));
  if (absl::IsNotFound(bias.status())) {
    return at::Tensor();
  }
  return bias;
}

absl::Status AdapterBuilder::CheckFinite(absl::string_view module, double norm) const {
  if (std::isfinite(norm)) {
    return absl::OkStatus();
  }
  return InvalidAdapterError(
      "NOT_FINITE", module,
      absl::StrCat("module ", Quoted(module), " has values too large for ", c10::toString(dtype_)));
}

absl::StatusOr<at::Tensor> AdapterBuilder::Cast(absl::string_view module,
                                                const at::Tensor& values) const {
  at::Tensor cast = values.to(dtype_).contiguous();
  TENON_RETURN_IF_ERROR(CheckFinite(module, Norm(cast)));
  return cast;
}

void AdapterBuilder::Warn(std::string warning) { report_->warnings.push_back(std::move(warning)); }

void AdapterBuilder::Touch(const Target& target, double norm) {
  report_->num_sites += touched_.insert(target.module).second ? 1 : 0;
  report_->delta_norm_bound += norm;
}

EmbeddingDelta& AdapterBuilder::Embedding() {
  if (embedding_ == nullptr) {
    embedding_ = std::make_unique<EmbeddingDelta>();
  }
  return *embedding_;
}

HeadDelta& AdapterBuilder::Head() {
  if (head_ == nullptr) {
    head_ = std::make_unique<HeadDelta>();
  }
  return *head_;
}

SiteDelta& AdapterBuilder::DeltaAt(const Target& target) {
  return target.shape.site == Site::kHead ? Head().site
                                          : deltas_[{target.shape.layer, target.shape.site}];
}

absl::Status AdapterBuilder::SetLowRank(const Target& target, LowRankDelta delta, double norm) {
  SiteDelta& site = DeltaAt(target);
  if (site.low_rank.defined()) {
    return InvalidAdapterError(
        "DUPLICATE_MODULE", target.module,
        absl::StrCat("module ", Quoted(target.module), " has two updates in one adapter"));
  }
  site.low_rank = std::move(delta);
  Touch(target, norm);
  return absl::OkStatus();
}

absl::Status AdapterBuilder::SetLowRankEmbedding(const Target& target, const at::Tensor& down,
                                                 const at::Tensor& up, double scaling,
                                                 double norm) {
  EmbeddingDelta& embedding = Embedding();
  embedding.down = down.t().contiguous();
  TENON_ASSIGN_OR_RETURN(embedding.up, LowRankDelta::CreateDense(up, static_cast<float>(scaling)));
  Touch(target, norm);
  return absl::OkStatus();
}

absl::Status AdapterBuilder::AddLowRank(const Target& target, const at::Tensor& down,
                                        const at::Tensor& up, double scaling) {
  TENON_ASSIGN_OR_RETURN(at::Tensor cast_down, Cast(target.module, down));
  TENON_ASSIGN_OR_RETURN(const at::Tensor cast_up, Cast(target.module, up));
  const double norm = std::abs(scaling) * Norm(cast_down) * Norm(cast_up);
  report_->max_rank = std::max(report_->max_rank, down.size(0));
  if (target.shape.site == Site::kEmbedding) {
    return SetLowRankEmbedding(target, cast_down, cast_up, scaling, norm);
  }
  TENON_ASSIGN_OR_RETURN(LowRankDelta delta, LowRankDelta::Create(std::move(cast_down), cast_up,
                                                                  static_cast<float>(scaling)));
  return SetLowRank(target, std::move(delta), norm);
}

absl::Status AdapterBuilder::AddDense(const Target& target, const at::Tensor& matrix,
                                      double scaling) {
  TENON_ASSIGN_OR_RETURN(const at::Tensor cast, Cast(target.module, matrix));
  TENON_ASSIGN_OR_RETURN(LowRankDelta delta,
                         LowRankDelta::CreateDense(cast, static_cast<float>(scaling)));
  return SetLowRank(target, std::move(delta), std::abs(scaling) * Norm(cast));
}

absl::Status AdapterBuilder::AddOutputGain(const Target& target, const at::Tensor& gain) {
  const double norm = Norm(gain);
  TENON_RETURN_IF_ERROR(CheckFinite(target.module, norm));
  Accumulate(
      target.shape.site == Site::kEmbedding ? Embedding().output_gain : DeltaAt(target).output_gain,
      gain);
  Touch(target, norm);
  return absl::OkStatus();
}

absl::Status AdapterBuilder::AddInputGain(const Target& target, const at::Tensor& gain) {
  const double norm = Norm(gain);
  TENON_RETURN_IF_ERROR(CheckFinite(target.module, norm));
  if (HasOwnInput(target.shape.site)) {
    Accumulate(DeltaAt(target).input_gain, gain);
    Touch(target, norm);
    return absl::OkStatus();
  }
  // The base's rows of the batch read the same x: W (g * x) is a matrix of its own here.
  TENON_ASSIGN_OR_RETURN(const at::Tensor weight, BaseWeight(target));
  Warn(absl::StrCat("module ", Quoted(target.module), " shares its input with other modules: its ",
                    "input scale is kept as a matrix of ", target.shape.out_features, " x ",
                    target.shape.in_features));
  return AddDense(target, weight * gain, 1.0);
}

absl::Status AdapterBuilder::AddOffset(const Target& target, const at::Tensor& offset) {
  const double norm = Norm(offset);
  TENON_RETURN_IF_ERROR(CheckFinite(target.module, norm));
  if (target.shape.site == Site::kEmbedding) {
    return UnknownModule(base_, absl::StrCat(target.module, ".bias"));
  }
  Accumulate(DeltaAt(target).offset, offset);
  Touch(target, norm);
  return absl::OkStatus();
}

absl::Status AdapterBuilder::SetTable(const Target& target, const at::Tensor& table) {
  TENON_ASSIGN_OR_RETURN(at::Tensor cast, Cast(target.module, table));
  Touch(target, Norm(cast));
  if (target.shape.site == Site::kEmbedding) {
    Embedding().table = std::move(cast);
    return absl::OkStatus();
  }
  TENON_ASSIGN_OR_RETURN(Head().table, PackedMatrix::Pack({&cast, 1}));
  return absl::OkStatus();
}

absl::Status AdapterBuilder::SetRows(const Target& target, std::vector<int32_t> tokens,
                                     const at::Tensor& rows) {
  TENON_ASSIGN_OR_RETURN(at::Tensor cast, Cast(target.module, rows));
  Touch(target, Norm(cast));
  if (target.shape.site == Site::kEmbedding) {
    Embedding().tokens = std::move(tokens);
    Embedding().rows = std::move(cast);
    return absl::OkStatus();
  }
  TENON_ASSIGN_OR_RETURN(Head().rows, PackedMatrix::Pack({&cast, 1}));
  Head().tokens = std::move(tokens);
  return absl::OkStatus();
}

absl::Status AdapterBuilder::SetBottleneck(const std::string& module, Sublayer sublayer,
                                           BottleneckDelta delta) {
  const auto layer = base_.layers.find(module);
  if (layer == base_.layers.end()) {
    return UnknownModule(base_, module);
  }
  const double norm = Norm(delta.scale) * Norm(delta.up.panels()) *
                          (Norm(delta.down.panels()) + Norm(delta.down_bias)) +
                      Norm(delta.up_bias);
  TENON_RETURN_IF_ERROR(CheckFinite(module, norm));
  report_->max_rank = std::max(report_->max_rank, delta.width());
  report_->num_sites += 1;
  report_->delta_norm_bound += norm;
  adapter_->set_bottleneck(layer->second, sublayer, std::move(delta));
  return absl::OkStatus();
}

absl::Status AdapterBuilder::SetContext(AdapterContext context) {
  if (context.num_tokens >= base_.max_context_tokens) {
    return PreconditionError("CONTEXT_TOO_LONG", "adapter",
                             absl::StrCat("the adapter has ", context.num_tokens,
                                          " virtual tokens, but the base model's context has ",
                                          base_.max_context_tokens, " tokens in all"));
  }
  for (const at::Tensor* tensor : {&context.embeddings, &context.keys, &context.values}) {
    report_->delta_norm_bound += tensor->defined() ? Norm(*tensor) : 0.0;
  }
  report_->num_virtual_tokens = context.num_tokens;
  adapter_->set_context(std::move(context));
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<const CompiledAdapter>> AdapterBuilder::Finish() {
  if (report_->num_sites == 0 && report_->num_virtual_tokens == 0) {
    return PreconditionError("NO_SITES", "adapter", "the adapter changes no module of the base");
  }
  for (auto& [place, delta] : deltas_) {
    adapter_->set_delta(place.first, place.second, std::move(delta));
  }
  if (embedding_ != nullptr) {
    adapter_->set_embedding(*std::move(embedding_));
  }
  if (head_ != nullptr) {
    adapter_->set_head(*std::move(head_));
  }
  for (const auto& [module, shape] : base_.modules) {
    report_->num_untouched_sites += IsNorm(shape.site) || touched_.contains(module) ? 0 : 1;
  }
  if (report_->delta_norm_bound == 0) {
    Warn("all deltas are zero: the adapter changes nothing");
  }
  report_->resident_bytes = adapter_->resident_bytes();
  adapter_->Compact();
  return std::shared_ptr<const CompiledAdapter>(std::move(adapter_));
}

}  // namespace tenon
