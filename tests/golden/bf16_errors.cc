#include "tests/golden/bf16_errors.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace tenon {

void Bf16Errors::Errors::Add(double error) {
  squares += error * error;
  largest = std::max(largest, std::abs(error));
  ++count;
}

double Bf16Errors::Errors::rms() const {
  return count == 0 ? 0 : std::sqrt(squares / static_cast<double>(count));
}

void Bf16Errors::Add(const MatrixCase& one, const DriverResult& result) {
  Pair& cell = cells_[{one.library, one.method}];
  const std::vector<float>& exact = one.golden.logprobs.front();
  for (const TokenLogprob& top : result.steps.front().top_logprobs) {
    const double tenon = top.logprob - exact[top.token];
    const double reference = one.golden.bf16_logprobs.at(top.token) - exact[top.token];
    for (Pair* pair : {&cell, &all_}) {
      pair->tenon.Add(tenon);
      pair->reference.Add(reference);
    }
  }
}

double Bf16Errors::Measure(const MatrixCase& one) const {
  return std::max(cells_.at({one.library, one.method}).reference.rms(), all_.reference.rms());
}

size_t Bf16Errors::FirstOther(const MatrixCase& one, const DriverResult& result) {
  size_t step = 0;
  while (step < result.steps.size() && result.steps[step].token == one.golden.tokens[step]) {
    ++step;
  }
  return step;
}

std::string Bf16Errors::Complaint(const MatrixCase& one, const DriverResult& result) {
  const double error = cells_.at({one.library, one.method}).tenon.rms();
  const double bound = kCellFactor * Measure(one);
  if (!(error <= bound)) {  // also where it is NaN
    return absl::StrCat(one.golden.name, ": an error of ", error, " exceeds ", bound);
  }
  const std::vector<float>& margins = one.golden.margins;
  const double decided = kDecidedSigmas * std::sqrt(2.0) * Measure(one);
  const size_t other = FirstOther(one, result);
  const auto compared = margins.begin() + std::min(other + 1, margins.size());
  num_compared_ += compared - margins.begin();
  num_decided_ +=
      std::count_if(margins.begin(), compared, [&](float margin) { return margin > decided; });
  if (other < margins.size() && margins[other] > decided) {
    return absl::StrCat(one.golden.name, ": another token at step ", other, ", whose margin ",
                        margins[other], " is over ", decided);
  }
  return "";
}

std::string Bf16Errors::Complaint() const {
  const double bound = kArchitectureFactor * all_.reference.rms();
  if (!(all_.tenon.rms() <= bound)) {
    return absl::StrCat("an error of ", all_.tenon.rms(), " over all cells exceeds ", bound);
  }
  return "";
}

std::string Bf16Errors::Print() const {
  std::string text = absl::StrFormat("%-52s %9s %9s %6s %9s %9s\n", "bf16 errors", "rms",
                                     "reference", "ratio", "largest", "reference");
  const auto add = [&text](const std::string& name, const Pair& pair) {
    absl::StrAppendFormat(&text, "%-52s %9.5f %9.5f %6.2f %9.5f %9.5f\n", name, pair.tenon.rms(),
                          pair.reference.rms(), pair.tenon.rms() / pair.reference.rms(),
                          pair.tenon.largest, pair.reference.largest);
  };
  for (const auto& [cell, pair] : cells_) {
    add(absl::StrCat(cell.first, ": ", cell.second), pair);
  }
  add("all", all_);
  absl::StrAppend(&text, num_compared_, " tokens compared, ", num_decided_,
                  " of them decided by their margin\n");
  return text;
}

}  // namespace tenon
