#include "tests/golden/matrix_table.h"

#include <fstream>
#include <iomanip>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace tenon {

absl::StatusOr<MatrixTable> MatrixTable::Load(const std::string& path) {
  std::ifstream file(path);
  const nlohmann::json matrix = nlohmann::json::parse(file, nullptr, /*allow_exceptions=*/false);
  if (!matrix.is_object() || !matrix.contains("cells")) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": want an object with cells"));
  }
  MatrixTable table;
  for (const nlohmann::json& entry : matrix["cells"]) {
    const std::string architecture = entry.at("architecture");
    Cell& cell = table.rows_[{entry.at("library"), entry.at("method")}][architecture];
    table.architectures_.insert(architecture);
    if (entry.at("status") == "golden") {
      ++table.num_goldens_;
    } else {
      cell = {State::kUnsupported, entry.at("reason")};
    }
  }
  return table;
}

MatrixTable::Cell* MatrixTable::FindGolden(const std::string& architecture,
                                           const std::string& library, const std::string& method) {
  const auto row = rows_.find({library, method});
  if (row == rows_.end()) {
    return nullptr;
  }
  const auto cell = row->second.find(architecture);
  const bool golden = cell != row->second.end() && cell->second.state != State::kUnsupported;
  return golden ? &cell->second : nullptr;
}

bool MatrixTable::Record(const std::string& architecture, const std::string& library,
                         const std::string& method, bool passed) {
  Cell* const cell = FindGolden(architecture, library, method);
  if (cell == nullptr) {
    return false;
  }
  const bool failed = !passed || cell->state == State::kFailed;
  cell->state = failed ? State::kFailed : State::kPassed;
  return true;
}

bool MatrixTable::RecordDifferent(const std::string& architecture, const std::string& library,
                                  const std::string& method) {
  Cell* const cell = FindGolden(architecture, library, method);
  if (cell == nullptr) {
    return false;
  }
  cell->state = State::kDifferent;
  return true;
}

size_t MatrixTable::Count(State state) const {
  size_t count = 0;
  for (const auto& [row, cells] : rows_) {
    for (const auto& [architecture, cell] : cells) {
      count += cell.state == state ? 1 : 0;
    }
  }
  return count;
}

std::string MatrixTable::Print() const {
  std::ostringstream out;
  std::map<std::string, size_t> reasons;
  const auto text = [&reasons](const Cell& cell) -> std::string {
    switch (cell.state) {
      case State::kPassed:
        return "pass";
      case State::kFailed:
        return "FAIL";
      case State::kDifferent:
        return "differs";
      case State::kNotRun:
        return "not run";
      case State::kUnsupported:
        break;
    }
    return absl::StrCat("- ", reasons.emplace(cell.reason, reasons.size() + 1).first->second);
  };
  out << std::left << std::setw(60) << "library: method";
  for (const std::string& architecture : architectures_) {
    out << std::setw(9) << architecture;
  }
  for (const auto& [row, cells] : rows_) {
    out << "\n" << std::setw(60) << absl::StrCat(row.first, ": ", row.second);
    for (const std::string& architecture : architectures_) {
      const auto cell = cells.find(architecture);
      out << std::setw(9) << (cell == cells.end() ? "no cell" : text(cell->second));
    }
  }
  for (const auto& [reason, number] : reasons) {
    out << "\n- " << number << ": the reference does not support it: " << reason;
  }
  out << "\n";
  return out.str();
}

}  // namespace tenon
