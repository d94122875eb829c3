#include "adapters/methods/shared_parts.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"
#include "adapters/base/status_macros.h"
#include "adapters/methods/tensor_view.h"

namespace tenon {
namespace {

// How far a copy of a base matrix may be from it, relative to its norm: what fp16 or bf16 rounds.
constexpr double kCopyTolerance = 0.01;

absl::Status CompileBias(const BiasOverride& override, AdapterBuilder& builder) {
  TENON_ASSIGN_OR_RETURN(const Target target, builder.Find(override.module));
  TENON_ASSIGN_OR_RETURN(const at::Tensor base, builder.BaseBias(target));
  if (!base.defined()) {
    return PreconditionError(
        "UNKNOWN_MODULE", override.module,
        absl::StrCat("module ", Quoted(override.module), " has no bias in the base model"));
  }
  const at::Tensor bias = builder.Read(override.bias).flatten();
  TENON_RETURN_IF_ERROR(AdapterBuilder::CheckSize(override.module, "the size of the bias",
                                                  bias.numel(), base.numel()));
  return builder.AddOffset(target, bias - base);
}

// The embedding or the head, [vocab, hidden].
absl::StatusOr<Target> FindTable(const std::string& module, int64_t hidden,
                                 const AdapterBuilder& builder) {
  TENON_ASSIGN_OR_RETURN(Target target, builder.Find(module));
  if (target.shape.site != Site::kEmbedding && target.shape.site != Site::kHead) {
    return PreconditionError("UNKNOWN_MODULE", module,
                             absl::StrCat("module ", Quoted(module),
                                          " is neither the embedding nor the head: it cannot be "
                                          "replaced"));
  }
  TENON_RETURN_IF_ERROR(
      AdapterBuilder::CheckSize(module, "the size of a row", hidden, builder.base().hidden_size));
  return target;
}

absl::StatusOr<Target> FindTable(const SavedModule& saved, const AdapterBuilder& builder) {
  TENON_ASSIGN_OR_RETURN(Target target, FindTable(saved.module, saved.weight.shape[1], builder));
  TENON_RETURN_IF_ERROR(AdapterBuilder::CheckSize(saved.module, "the size of the vocabulary",
                                                  saved.weight.shape[0],
                                                  builder.base().vocab_size));
  return target;
}

absl::Status CheckTokens(const TokenRows& rows, const AdapterBuilder& builder) {
  for (const int32_t token : rows.tokens) {
    if (token < 0 || token >= builder.base().vocab_size) {
      return PreconditionError("SHAPE_MISMATCH", rows.module,
                               absl::StrCat("token ", token, " is not below the base model's ",
                                            "vocabulary of ", builder.base().vocab_size));
    }
  }
  return AdapterBuilder::CheckSize(rows.module, "the number of rows", rows.rows.shape[0],
                                   static_cast<int64_t>(rows.tokens.size()));
}

// The rows in ascending order of their tokens.
absl::Status SetSorted(const Target& target, const std::vector<int32_t>& tokens,
                       const at::Tensor& values, AdapterBuilder& builder) {
  std::vector<int64_t> order(tokens.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return tokens[static_cast<size_t>(a)] < tokens[static_cast<size_t>(b)];
  });
  std::vector<int32_t> sorted;
  for (const int64_t index : order) {
    sorted.push_back(tokens[static_cast<size_t>(index)]);
  }
  if (std::adjacent_find(sorted.begin(), sorted.end()) != sorted.end()) {
    return InvalidAdapterError(
        "DUPLICATE_TOKEN", target.module,
        absl::StrCat("module ", Quoted(target.module), " has two rows for one token"));
  }
  return builder.SetRows(target, std::move(sorted),
                         at::index_select(values, 0, at::tensor(order, at::kLong)));
}

absl::Status CompileRows(const TokenRows& rows, bool for_head, AdapterBuilder& builder) {
  TENON_ASSIGN_OR_RETURN(const Target target, FindTable(rows.module, rows.rows.shape[1], builder));
  TENON_RETURN_IF_ERROR(CheckTokens(rows, builder));
  if (rows.tokens.empty()) {
    return absl::OkStatus();
  }
  const at::Tensor values = builder.Read(rows.rows);
  TENON_RETURN_IF_ERROR(SetSorted(target, rows.tokens, values, builder));
  if (!for_head) {
    return absl::OkStatus();
  }
  for (const auto& [module, shape] : builder.base().modules) {
    if (shape.site == Site::kHead) {
      return SetSorted({module, shape}, rows.tokens, values, builder);
    }
  }
  return absl::OkStatus();
}

absl::Status CompileTokenRows(const std::vector<TokenRows>& all, AdapterBuilder& builder) {
  bool has_head = false;
  for (const TokenRows& rows : all) {
    TENON_ASSIGN_OR_RETURN(const Target target, builder.Find(rows.module));
    has_head = has_head || target.shape.site == Site::kHead;
  }
  const bool for_head = builder.base().tied_embeddings && !has_head;
  for (const TokenRows& rows : all) {
    TENON_RETURN_IF_ERROR(CompileRows(rows, for_head, builder));
  }
  return absl::OkStatus();
}

absl::Status CheckCopy(const SavedModule& copy, AdapterBuilder& builder) {
  TENON_ASSIGN_OR_RETURN(const Target target, FindTable(copy, builder));
  TENON_ASSIGN_OR_RETURN(at::Tensor base, builder.BaseWeight(target));
  base = target.shape.site == Site::kEmbedding ? base.t() : base;
  const at::Tensor values = CopyToTensor(copy.weight, at::kFloat);
  if (Norm(values - base) <= kCopyTolerance * Norm(base)) {
    return absl::OkStatus();
  }
  return PreconditionError("BASE_MISMATCH", copy.module,
                           absl::StrCat("the adapter's copy of ", Quoted(copy.module),
                                        " is not the base model's: it was made for another base"));
}

}  // namespace

absl::Status CompileSharedParts(const SharedParts& parts, AdapterBuilder& builder) {
  for (const BiasOverride& bias : parts.biases) {
    TENON_RETURN_IF_ERROR(CompileBias(bias, builder));
  }
  TENON_RETURN_IF_ERROR(CompileTokenRows(parts.token_rows, builder));
  for (const SavedModule& saved : parts.saved_modules) {
    TENON_ASSIGN_OR_RETURN(const Target target, FindTable(saved, builder));
    TENON_RETURN_IF_ERROR(builder.SetTable(target, builder.Read(saved.weight)));
  }
  for (const SavedModule& copy : parts.base_copies) {
    TENON_RETURN_IF_ERROR(CheckCopy(copy, builder));
  }
  return absl::OkStatus();
}

}  // namespace tenon
