#include "adapters/methods/lora.h"

#include <ATen/ops/norm.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>
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

absl::Status CheckShapes(const LoraModule& lora, const SiteShape& site) {
  if (lora.a.shape[1] == site.in_features && lora.b.shape[0] == site.out_features) {
    return absl::OkStatus();
  }
  return PreconditionError(
      "SHAPE_MISMATCH", lora.module,
      absl::StrCat("module ", Quoted(lora.module), " maps ", lora.a.shape[1], " to ",
                   lora.b.shape[0], " features in the adapter, but ", site.in_features, " to ",
                   site.out_features, " in the base model"));
}

// The Frobenius norm, accumulated in fp32; not finite when an element overflowed in the cast.
double Norm(const at::Tensor& tensor) { return at::norm(tensor, 2, at::kFloat).item<double>(); }

absl::Status CheckFinite(absl::string_view module, double norm, at::ScalarType dtype) {
  if (std::isfinite(norm)) {
    return absl::OkStatus();
  }
  return InvalidAdapterError(
      "NOT_FINITE", module,
      absl::StrCat("module ", Quoted(module), " has values too large for ", c10::toString(dtype)));
}

}  // namespace

absl::Status CompileLora(const LoraSpec& spec, const BaseShape& base, at::ScalarType dtype,
                         CompiledAdapter* adapter, CompileReport* report) {
  for (const LoraModule& lora : spec.modules) {
    const auto site = base.modules.find(lora.module);
    if (site == base.modules.end()) {
      return UnknownModule(base, lora.module);
    }
    TENON_RETURN_IF_ERROR(CheckShapes(lora, site->second));
  }
  for (const LoraModule& lora : spec.modules) {
    const SiteShape& site = base.modules.at(lora.module);
    const at::Tensor down = CopyToTensor(lora.a, dtype), up = CopyToTensor(lora.b, dtype);
    const double down_norm = Norm(down), up_norm = Norm(up);
    TENON_RETURN_IF_ERROR(CheckFinite(lora.module, down_norm, dtype));
    TENON_RETURN_IF_ERROR(CheckFinite(lora.module, up_norm, dtype));
    SiteDelta delta;
    TENON_ASSIGN_OR_RETURN(delta.low_rank,
                           LowRankDelta::Create(down, up, static_cast<float>(lora.scaling)));
    report->num_sites += 1;
    report->num_parameters += down.numel() + up.numel();
    report->max_rank = std::max(report->max_rank, delta.low_rank.rank());
    report->delta_norm_bound += std::abs(lora.scaling) * down_norm * up_norm;
    adapter->set_delta(site.layer, site.site, std::move(delta));
  }
  return absl::OkStatus();
}

}  // namespace tenon
