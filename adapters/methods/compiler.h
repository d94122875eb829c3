// The adapter compiler: what an adapter's files say, fitted to this base model.
#ifndef TENON_ADAPTERS_METHODS_COMPILER_H_
#define TENON_ADAPTERS_METHODS_COMPILER_H_

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "adapters/formats/adapter_spec.h"
#include "adapters/methods/base_shape.h"
#include "adapters/methods/compiled_adapter.h"

namespace tenon {

/// What a compilation found: the numbers of AdapterInfo, and what the uploader should know.
struct CompileReport {
  std::string method;               ///< AdapterSpec::method
  int64_t num_sites = 0;            ///< modules (bottlenecks: places) that the adapter changes
  int64_t num_untouched_sites = 0;  ///< linear layers and embeddings of the base that it does not
  int64_t num_virtual_tokens = 0;
  int64_t num_parameters = 0;  ///< numbers in the file that are used
  int64_t max_rank = 0;        ///< of low-rank deltas, or the width of a bottleneck
  int64_t stored_bytes = 0;    ///< of the adapter's files
  int64_t resident_bytes = 0;  ///< where the model runs
  /// A sum of norms over the sites which bounds the size of the adapter's effect to first order:
  /// scaling * |up|_F * |down|_F of a low-rank delta, the Frobenius norm of what else there is.
  /// Zero means that the adapter does nothing.
  double delta_norm_bound = 0;
  std::vector<std::string> warnings;  ///< the spec's, then the compiler's
};

/// Fits an adapter to the base: every module is found, its shapes agree, its tensors are cast to
/// `dtype` (fp32 or bf16, the base model's). The result is contiguous and independent of
/// spec.files, and lies on base.device. `report` may be null. Thread-safe.
///
/// FAILED_PRECONDITION (reason UNKNOWN_MODULE, SHAPE_MISMATCH, BASE_MISMATCH, CONTEXT_TOO_LONG or
/// NO_SITES), naming the module and the shapes, when the adapter was made for another base;
/// INVALID_ARGUMENT (NOT_FINITE) when a value does not fit `dtype`; RESOURCE_EXHAUSTED when there
/// is no memory for it; INTERNAL when LibTorch throws.
absl::StatusOr<std::shared_ptr<const CompiledAdapter>> Compile(const AdapterSpec& spec,
                                                               const BaseShape& base,
                                                               at::ScalarType dtype,
                                                               CompileReport* report);

}  // namespace tenon

#endif  // TENON_ADAPTERS_METHODS_COMPILER_H_
