#include "adapters/methods/factored.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/kron.h>
#include <ATen/ops/matmul.h>

#include <algorithm>
#include <functional>

#include "absl/strings/str_cat.h"
#include "adapters/base/status_macros.h"

namespace tenon {
namespace {

// left @ right, [rows, rank] and [rank, columns].
struct Product {
  at::Tensor left, right;

  int64_t rank() const { return left.size(1); }
  at::Tensor Matrix() const { return at::matmul(left, right); }
};

// Adds scaling * matrix, as a product of `rank` when that is less than the matrix itself. Returns
// the elements that are kept.
absl::StatusOr<int64_t> AddSmaller(const Target& target, int64_t rank, double scaling,
                                   const std::function<Product()>& product,
                                   const std::function<at::Tensor()>& matrix,
                                   AdapterBuilder& builder) {
  const int64_t in = target.shape.in_features, out = target.shape.out_features;
  if (rank * (in + out) < in * out) {
    const Product factors = product();
    TENON_RETURN_IF_ERROR(builder.AddLowRank(target, factors.right, factors.left, scaling));
    return rank * (in + out);
  }
  TENON_RETURN_IF_ERROR(builder.AddDense(target, matrix(), scaling));
  return in * out;
}

void WarnOfCost(absl::string_view method, int64_t elements, AdapterBuilder& builder) {
  builder.Warn(absl::StrCat(method, " is folded into matrices of ", elements,
                            " elements for this base model"));
}

// The columns of the elementwise product of two products: a_i * b_j for all i and j (the
// face-splitting product), rank a.size(1) * b.size(1).
at::Tensor PairColumns(const at::Tensor& a, const at::Tensor& b) {
  return (a.unsqueeze(2) * b.unsqueeze(1)).reshape({a.size(0), a.size(1) * b.size(1)});
}

absl::StatusOr<int64_t> FoldLoha(const LohaModule& module, AdapterBuilder& builder) {
  TENON_ASSIGN_OR_RETURN(
      const Target target,
      builder.FindLinear(module.module, module.w1_b.shape[1], module.w1_a.shape[0]));
  const Product first = {builder.Read(module.w1_a), builder.Read(module.w1_b)};
  const Product second = {builder.Read(module.w2_a), builder.Read(module.w2_b)};
  return AddSmaller(
      target, first.rank() * second.rank(), module.scaling,
      [&] {
        return Product{PairColumns(first.left, second.left),
                       PairColumns(first.right.t(), second.right.t()).t()};
      },
      [&] { return first.Matrix() * second.Matrix(); }, builder);
}

// A factor as a product of the least rank that can be told from its form.
Product AsProduct(const KroneckerFactor& factor, AdapterBuilder& builder) {
  if (!factor.whole.has_value()) {
    return {builder.Read(*factor.a), builder.Read(*factor.b)};
  }
  const at::Tensor whole = builder.Read(*factor.whole);
  const int64_t rows = whole.size(0), columns = whole.size(1);
  return columns <= rows ? Product{whole, at::eye(columns, whole.options())}
                         : Product{at::eye(rows, whole.options()), whole};
}

absl::StatusOr<int64_t> FoldLokr(const LokrModule& module, AdapterBuilder& builder) {
  const Product first = AsProduct(module.w1, builder), second = AsProduct(module.w2, builder);
  TENON_ASSIGN_OR_RETURN(
      const Target target,
      builder.FindLinear(module.module, first.right.size(1) * second.right.size(1),
                         first.left.size(0) * second.left.size(0)));
  return AddSmaller(
      target, first.rank() * second.rank(), module.scaling,
      [&] {
        return Product{at::kron(first.left, second.left), at::kron(first.right, second.right)};
      },
      [&] { return at::kron(first.Matrix(), second.Matrix()); }, builder);
}

}  // namespace

absl::Status CompileVera(const VeraSpec& spec, AdapterBuilder& builder) {
  const at::Tensor a = builder.Read(spec.a), b = builder.Read(spec.b);
  int64_t elements = 0;
  for (const VeraModule& module : spec.modules) {
    TENON_ASSIGN_OR_RETURN(const Target found, builder.Find(module.module));
    const int64_t in = found.shape.in_features, out = found.shape.out_features;
    TENON_ASSIGN_OR_RETURN(const Target target, builder.FindLinear(module.module, in, out));
    const at::Tensor lambda_b = builder.Read(module.lambda_b).flatten();
    const at::Tensor lambda_d = builder.Read(module.lambda_d).flatten();
    TENON_RETURN_IF_ERROR(
        AdapterBuilder::CheckSize(module.module, "the size of lambda_b", lambda_b.numel(), out));
    TENON_RETURN_IF_ERROR(AdapterBuilder::CheckSize(module.module, "the size of lambda_d",
                                                    lambda_d.numel(), a.size(0)));
    if (a.size(1) < in || b.size(0) < out) {
      return AdapterBuilder::CheckSize(module.module, "the reach of vera_A and vera_B",
                                       std::min(a.size(1), b.size(0)), std::max(in, out));
    }
    TENON_RETURN_IF_ERROR(builder.AddLowRank(target, a.narrow(1, 0, in) * lambda_d.unsqueeze(1),
                                             b.narrow(0, 0, out) * lambda_b.unsqueeze(1), 1.0));
    elements += a.size(0) * (in + out);
  }
  WarnOfCost("VeRA", elements, builder);
  return absl::OkStatus();
}

absl::Status CompileLoha(const LohaSpec& spec, AdapterBuilder& builder) {
  int64_t elements = 0;
  for (const LohaModule& module : spec.modules) {
    TENON_ASSIGN_OR_RETURN(const int64_t kept, FoldLoha(module, builder));
    elements += kept;
  }
  WarnOfCost("LoHa", elements, builder);
  return absl::OkStatus();
}

absl::Status CompileLokr(const LokrSpec& spec, AdapterBuilder& builder) {
  int64_t elements = 0;
  for (const LokrModule& module : spec.modules) {
    TENON_ASSIGN_OR_RETURN(const int64_t kept, FoldLokr(module, builder));
    elements += kept;
  }
  WarnOfCost("LoKr", elements, builder);
  return absl::OkStatus();
}

}  // namespace tenon
