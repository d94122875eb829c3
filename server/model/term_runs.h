// Runs of terms with the same rows, which go one way or another together.
#ifndef TENON_SERVER_MODEL_TERM_RUNS_H_
#define TENON_SERVER_MODEL_TERM_RUNS_H_

#include <cstddef>
#include <span>
#include <utility>
#include <vector>

namespace tenon {

/// Moves the runs of terms with the same rows for which `fits` from `terms` to what it returns.
template <typename Term, typename Predicate>
std::vector<Term> TakeRuns(std::vector<Term>& terms, Predicate fits) {
  std::vector<Term> taken, rest;
  for (size_t first = 0, last; first < terms.size(); first = last) {
    for (last = first; last < terms.size() && terms[last].begin == terms[first].begin; ++last) {
    }
    const std::span<const Term> rows(terms.data() + first, last - first);
    std::vector<Term>& target = fits(rows) ? taken : rest;
    target.insert(target.end(), rows.begin(), rows.end());
  }
  terms = std::move(rest);
  return taken;
}

}  // namespace tenon

#endif  // TENON_SERVER_MODEL_TERM_RUNS_H_
