// The two macros that Abseil 20220623 does not ship. Nothing else belongs here.
#ifndef TENON_ADAPTERS_BASE_STATUS_MACROS_H_
#define TENON_ADAPTERS_BASE_STATUS_MACROS_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define TENON_STATUS_CONCAT_INNER(a, b) a##b
#define TENON_STATUS_CONCAT(a, b) TENON_STATUS_CONCAT_INNER(a, b)

/// Returns from the enclosing function when `expr` (an absl::Status) is not OK.
#define TENON_RETURN_IF_ERROR(expr)                               \
  do {                                                            \
    if (absl::Status tenon_status = (expr); !tenon_status.ok()) { \
      return tenon_status;                                        \
    }                                                             \
  } while (false)

/// Assigns the value of `expr` (an absl::StatusOr<T>) to `lhs`, or returns its status:
///   TENON_ASSIGN_OR_RETURN(const int rank, ParseRank(config));
#define TENON_ASSIGN_OR_RETURN(lhs, expr) \
  TENON_ASSIGN_OR_RETURN_INNER(TENON_STATUS_CONCAT(tenon_status_or_, __LINE__), lhs, expr)

#define TENON_ASSIGN_OR_RETURN_INNER(status_or, lhs, expr) \
  auto status_or = (expr);                                 \
  if (!status_or.ok()) {                                   \
    return std::move(status_or).status();                  \
  }                                                        \
  lhs = *std::move(status_or)

#endif  // TENON_ADAPTERS_BASE_STATUS_MACROS_H_
