// Bf16Errors: Tenon in bf16 judged by the reference's own bf16.
#ifndef TENON_TESTS_GOLDEN_BF16_ERRORS_H_
#define TENON_TESTS_GOLDEN_BF16_ERRORS_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <utility>

#include "tests/golden/matrix_batch.h"
#include "tests/golden/step_driver.h"

namespace tenon {

/// How far bf16 may be from the reference's fp32 is not guessed but measured: as far as the
/// reference's own bf16 is, on the same cases. An error is the difference of the log-probs of the
/// first step from those of the reference in fp32, over the whole vocabulary; sizes are root mean
/// squares. Both round the same weights, and activations as often or oftener than Tenon, which sums
/// in fp32; so the two errors are of one size, and what is left is chance. By measurement the ratio
/// of the two in a cell scatters by a factor of 1.2, that in an architecture of 70 cells by 2 %.
///
/// - An architecture's error is at most kArchitectureFactor times the reference's.
/// - A cell's error is at most kCellFactor times the reference's in the cell or in the
/// architecture,
///   whichever is larger: in three prompts the reference may be lucky.
/// - A token is the reference's where its margin is above kDecidedSigmas times what a difference of
///   two errors of that size is (sqrt(2) of it). With the first other token the texts part.
///
/// Add every case first, then ask.
class Bf16Errors {
 public:
  static constexpr double kArchitectureFactor = 1.1;
  static constexpr double kCellFactor = 2.0;
  static constexpr double kDecidedSigmas = 6.0;

  void Add(const MatrixCase& one, const DriverResult& result);

  /// What is wrong with a case or its cell; "" when nothing is.
  std::string Complaint(const MatrixCase& one, const DriverResult& result);
  /// What is wrong with all of them together.
  std::string Complaint() const;

  /// A line a cell: root mean squares and largest errors of the two; then those of all, and how
  /// many tokens were decided.
  std::string Print() const;

 private:
  struct Errors {
    double squares = 0;
    double largest = 0;
    int64_t count = 0;

    void Add(double error);
    double rms() const;
  };
  struct Pair {
    Errors tenon, reference;
  };

  /// The size of the reference's error in a cell, or in the architecture if that is larger.
  double Measure(const MatrixCase& one) const;
  /// The first step with another token than the reference's; the number of steps if there is none.
  static size_t FirstOther(const MatrixCase& one, const DriverResult& result);

  Pair all_;
  std::map<std::pair<std::string, std::string>, Pair> cells_;  // library, method
  int64_t num_compared_ = 0, num_decided_ = 0;                 // tokens
};

}  // namespace tenon

#endif  // TENON_TESTS_GOLDEN_BF16_ERRORS_H_
