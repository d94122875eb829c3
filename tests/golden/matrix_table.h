// MatrixTable: every cell of the golden matrix and what became of it.
#ifndef TENON_TESTS_GOLDEN_MATRIX_TABLE_H_
#define TENON_TESTS_GOLDEN_MATRIX_TABLE_H_

#include <cstddef>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "absl/status/statusor.h"

namespace tenon {

/// The cells of matrix.json; a cell without a golden counts as settled by the reference's refusal.
class MatrixTable {
 public:
  static absl::StatusOr<MatrixTable> Load(const std::string& path);

  /// Notes one case of a cell; one that fails is enough. False when matrix.json has no such golden.
  bool Record(const std::string& architecture, const std::string& library,
              const std::string& method, bool passed);

  /// Notes that Tenon computes the cell in another way on purpose. False as above.
  bool RecordDifferent(const std::string& architecture, const std::string& library,
                       const std::string& method);

  /// Rows are methods, columns architectures: "pass", "FAIL", "not run", "differs" or "-" and a
  /// number that the list of reasons below the table explains.
  std::string Print() const;

  size_t num_goldens() const { return num_goldens_; }
  /// Cells with a golden of which every recorded case passed.
  size_t num_passed() const { return Count(State::kPassed); }
  size_t num_different() const { return Count(State::kDifferent); }

 private:
  enum class State { kNotRun, kPassed, kFailed, kDifferent, kUnsupported };
  struct Cell {
    State state = State::kNotRun;
    std::string reason;
  };
  using Row = std::pair<std::string, std::string>;  // library, method

  size_t Count(State state) const;
  /// Null when matrix.json has no golden there.
  Cell* FindGolden(const std::string& architecture, const std::string& library,
                   const std::string& method);

  std::set<std::string> architectures_;
  std::map<Row, std::map<std::string, Cell>> rows_;
  size_t num_goldens_ = 0;
};

}  // namespace tenon

#endif  // TENON_TESTS_GOLDEN_MATRIX_TABLE_H_
