// AdapterBuilder: collects what the compilers of the methods make of an adapter.
#ifndef TENON_ADAPTERS_METHODS_ADAPTER_BUILDER_H_
#define TENON_ADAPTERS_METHODS_ADAPTER_BUILDER_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "adapters/methods/compiler.h"

namespace tenon {

/// A module of the base that an adapter names.
struct Target {
  std::string module;
  SiteShape shape;
};

/// A Frobenius norm, in fp32; not finite when an element is not.
double Norm(const at::Tensor& tensor);

/// Fits parts to the base, merges those that meet at one site, casts them to the base's dtype and
/// keeps the report. Not thread-safe; lives for one compilation and borrows its arguments. Errors
/// are Compile's. Everything may throw what LibTorch throws.
class AdapterBuilder {
 public:
  AdapterBuilder(const BaseShape& base, at::ScalarType dtype, CompileReport* report);

  const BaseShape& base() const { return base_; }
  at::ScalarType dtype() const { return dtype_; }

  /// The module of that path. FAILED_PRECONDITION (UNKNOWN_MODULE) when adapters cannot have it.
  absl::StatusOr<Target> Find(const std::string& module) const;
  /// A linear layer of that path, which maps `in` features to `out`. FAILED_PRECONDITION
  /// (UNKNOWN_MODULE, SHAPE_MISMATCH) otherwise.
  absl::StatusOr<Target> FindLinear(const std::string& module, int64_t in, int64_t out) const;
  /// The same, or the embedding as a map from the vocabulary to `out`.
  absl::StatusOr<Target> FindLinearOrEmbedding(const std::string& module, int64_t in,
                                               int64_t out) const;
  /// FAILED_PRECONDITION (SHAPE_MISMATCH), naming `what`, when `actual` is not `wanted`.
  static absl::Status CheckSize(absl::string_view module, absl::string_view what, int64_t actual,
                                int64_t wanted);

  /// A tensor of the adapter as fp32, counted among its parameters.
  at::Tensor Read(const TensorView& view);
  /// The base's weight of a linear layer [out, in], fp32; of the embedding [hidden, vocab].
  absl::StatusOr<at::Tensor> BaseWeight(const Target& target) const;
  /// The base's bias [out], fp32; undefined when the module has none.
  absl::StatusOr<at::Tensor> BaseBias(const Target& target) const;

  /// y += scaling * up (down x). down [rank, in], up [out, rank], fp32. At the embedding the
  /// columns of `down` are looked up.
  absl::Status AddLowRank(const Target& target, const at::Tensor& down, const at::Tensor& up,
                          double scaling);
  /// y += scaling * matrix x. matrix [out, in] fp32.
  absl::Status AddDense(const Target& target, const at::Tensor& matrix, double scaling);
  /// y += gain * y0, [out] fp32.
  absl::Status AddOutputGain(const Target& target, const at::Tensor& gain);
  /// x += gain * x in front of W, [in] fp32: as a dense delta where the input has other readers.
  absl::Status AddInputGain(const Target& target, const at::Tensor& gain);
  /// y += offset, [out] fp32.
  absl::Status AddOffset(const Target& target, const at::Tensor& offset);

  /// The matrix [vocab, hidden] in place of the embedding's or the head's.
  absl::Status SetTable(const Target& target, const at::Tensor& table);
  /// Rows [tokens, hidden] of it; tokens ascend.
  absl::Status SetRows(const Target& target, std::vector<int32_t> tokens, const at::Tensor& rows);
  absl::Status SetBottleneck(const std::string& module, Sublayer sublayer, BottleneckDelta delta);
  absl::Status SetContext(AdapterContext context);

  /// fp32 values in the base's dtype, contiguous. INVALID_ARGUMENT (NOT_FINITE), naming the module,
  /// when one does not fit it.
  absl::StatusOr<at::Tensor> Cast(absl::string_view module, const at::Tensor& values) const;
  void Warn(std::string warning);

  /// FAILED_PRECONDITION (NO_SITES) when nothing was added. The builder is of no use afterwards.
  absl::StatusOr<std::shared_ptr<const CompiledAdapter>> Finish();

 private:
  absl::Status CheckFinite(absl::string_view module, double norm) const;
  absl::Status CheckFeatures(const Target& target, int64_t in, int64_t out) const;
  SiteDelta& DeltaAt(const Target& target);
  EmbeddingDelta& Embedding();
  HeadDelta& Head();
  absl::Status SetLowRank(const Target& target, LowRankDelta delta, double norm);
  absl::Status SetLowRankEmbedding(const Target& target, const at::Tensor& down,
                                   const at::Tensor& up, double scaling, double norm);
  void Touch(const Target& target, double norm);

  const BaseShape& base_;
  const at::ScalarType dtype_;
  CompileReport* const report_;
  std::shared_ptr<CompiledAdapter> adapter_;
  std::map<std::pair<int64_t, Site>, SiteDelta> deltas_;
  std::unique_ptr<EmbeddingDelta> embedding_;
  std::unique_ptr<HeadDelta> head_;
  absl::flat_hash_set<std::string> touched_;  // modules
};

}  // namespace tenon

#endif  // TENON_ADAPTERS_METHODS_ADAPTER_BUILDER_H_
