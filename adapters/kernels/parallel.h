// ParallelFor: independent tasks over LibTorch's threads.
#ifndef TENON_ADAPTERS_KERNELS_PARALLEL_H_
#define TENON_ADAPTERS_KERNELS_PARALLEL_H_

#include <cstdint>

#include "absl/functional/function_ref.h"

namespace tenon {

/// Runs task(0) ... task(num_tasks - 1), each once, in any order and on any of LibTorch's intra-op
/// threads; returns when all have run. Threads take the next task when they are done with one, so
/// tasks may differ in size. `task_cost` is the mean cost of a task in units of about a nanosecond:
/// when the sum is not worth waking threads for, the caller's thread runs all of them.
/// Tasks must not throw.
void ParallelFor(int64_t num_tasks, int64_t task_cost, absl::FunctionRef<void(int64_t)> task);

/// The number of threads that ParallelFor may use.
int64_t NumKernelThreads();

}  // namespace tenon

#endif  // TENON_ADAPTERS_KERNELS_PARALLEL_H_
