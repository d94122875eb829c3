// MatrixBatch: all cells of one architecture of the golden matrix, to be run as one batch.
#ifndef TENON_TESTS_GOLDEN_MATRIX_BATCH_H_
#define TENON_TESTS_GOLDEN_MATRIX_BATCH_H_

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/model/model.h"
#include "server/model/tensor_parallel_runner.h"
#include "tests/golden/golden_files.h"
#include "tests/golden/step_driver.h"

namespace tenon {

/// One case of a cell. Its name is "<method>/<prompt length>".
struct MatrixCase {
  std::string library;  ///< as in matrix.json
  std::string method;
  GoldenCase golden;
  DriverRequest request;  ///< greedy, with the log-probs of all tokens
};

/// The model of an architecture, the compiled adapters of every library, and the cases of all of
/// them and of the bare base. Not thread-safe.
class MatrixBatch {
 public:
  /// Fails on an adapter that does not compile, naming it. `num_ranks`: tensor-parallel.
  static absl::StatusOr<MatrixBatch> Load(const std::string& architecture, at::ScalarType dtype,
                                          int64_t num_ranks = 1);

  const std::vector<MatrixCase>& cases() const { return cases_; }
  /// Whether a case alone has the same bits as among others.
  bool is_batch_invariant() const { return runner_->is_batch_invariant(); }

  /// Runs all cases from their first step to their last in the same batch: INTERNAL if a step
  /// leaves one out.
  absl::StatusOr<std::vector<DriverResult>> RunTogether();
  /// Runs one case with nothing beside it.
  absl::StatusOr<DriverResult> RunAlone(const MatrixCase& one);

 private:
  /// Adds the adapters and cases of a library's folder.
  absl::Status AddLibrary(const std::string& folder, const std::string& library);

  Model model_;
  DriverOptions driver_;
  AdapterMap adapters_;  ///< "<library>/<adapter>"
  std::vector<MatrixCase> cases_;
  std::unique_ptr<TensorParallelRunner> runner_;
};

}  // namespace tenon

#endif  // TENON_TESTS_GOLDEN_MATRIX_BATCH_H_
