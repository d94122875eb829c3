#include "adapters/formats/tensor_checks.h"

#include <algorithm>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"
#include "adapters/formats/finite.h"

namespace tenon {
namespace {

constexpr size_t kMaxModuleBytes = 256;

std::string ShapeText(const std::vector<int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

}  // namespace

absl::Status RefuseTensor(absl::string_view reason, absl::string_view tensor,
                          absl::string_view message) {
  return InvalidAdapterError(reason, tensor, absl::StrCat("tensor ", Quoted(tensor), " ", message));
}

absl::Status CheckFloats(const NamedTensor& tensor, size_t num_dims) {
  const TensorView& view = tensor.view;
  if (view.dtype != DType::kF32 && view.dtype != DType::kF16 && view.dtype != DType::kBF16) {
    return RefuseTensor(
        "UNSUPPORTED_DTYPE", tensor.name,
        absl::StrCat("has dtype ", DTypeName(view.dtype), "; F32, F16 and BF16 are supported"));
  }
  if (view.shape.size() != num_dims || view.bytes.empty()) {
    constexpr absl::string_view kWords[] = {"no dimensions", "one dimension", "two dimensions"};
    return RefuseTensor("INVALID_SHAPE", tensor.name,
                        absl::StrCat("has shape ", ShapeText(view.shape), " instead of ",
                                     kWords[std::min<size_t>(num_dims, 2)], " from 1 on"));
  }
  if (const std::optional<int64_t> index = FindNonFinite(view); index.has_value()) {
    return RefuseTensor("NOT_FINITE", tensor.name,
                        absl::StrCat("holds NaN or Inf at element ", *index));
  }
  return absl::OkStatus();
}

absl::Status CheckShape(const NamedTensor& tensor, const std::vector<int64_t>& shape) {
  const std::vector<int64_t>& actual = tensor.view.shape;
  const bool fits = std::equal(actual.begin(), actual.end(), shape.begin(), shape.end(),
                               [](int64_t a, int64_t b) { return b == -1 || a == b; });
  if (!fits) {
    std::string wanted = ShapeText(shape);
    return RefuseTensor("INVALID_SHAPE", tensor.name,
                        absl::StrCat("has shape ", ShapeText(actual), " instead of ", wanted,
                                     wanted.find("-1") == std::string::npos ? "" : " (-1: any)"));
  }
  return CheckFloats(tensor, shape.size());
}

absl::Status CheckTensorRank(const NamedTensor& tensor, size_t dim, int64_t config_rank,
                             int64_t max_rank) {
  const int64_t rank = tensor.view.shape[dim];
  if (rank > max_rank) {
    return RefuseTensor("RANK_LIMIT", tensor.name,
                        absl::StrCat("has rank ", rank, ", which exceeds the limit of ", max_rank,
                                     " (max_adapter_rank)"));
  }
  if (rank != config_rank) {
    return RefuseTensor(
        "INVALID_SHAPE", tensor.name,
        absl::StrCat("has rank ", rank, ", but r and rank_pattern say ", config_rank));
  }
  return absl::OkStatus();
}

bool IsModuleName(absl::string_view module) {
  return !module.empty() && module.size() <= kMaxModuleBytes &&
         std::all_of(module.begin(), module.end(), [](char c) {
           return absl::ascii_isalnum(c) || c == '.' || c == '_' || c == '-';
         });
}

absl::string_view LastComponent(absl::string_view module) {
  const size_t dot = module.rfind('.');
  return dot == absl::string_view::npos ? module : module.substr(dot + 1);
}

bool IsEmbeddingModule(absl::string_view module) {
  const absl::string_view name = LastComponent(module);
  return name == "embed_tokens" || name == "wte";
}

bool IsHeadModule(absl::string_view module) { return LastComponent(module) == "lm_head"; }

}  // namespace tenon
