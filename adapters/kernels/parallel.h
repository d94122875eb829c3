// ParallelFor: independent tasks over the kernels' threads.
#ifndef TENON_ADAPTERS_KERNELS_PARALLEL_H_
#define TENON_ADAPTERS_KERNELS_PARALLEL_H_

#include <cstdint>

#include "absl/functional/function_ref.h"

namespace tenon {

/// Runs task(0) ... task(num_tasks - 1), each once, in any order and on any of the kernels'
/// threads, the caller's among them; returns when all have run. Threads take the next task when
/// they are done with one, so tasks may differ in size, and a thread that the system does not run
/// meanwhile is not waited for: the caller then does the work alone. `task_cost` is the mean cost
/// of a task in units of about a nanosecond: when the sum is not worth waking threads for, the
/// caller's thread runs all of them. So it does in a task, in a SerialScope, and while another
/// thread's tasks have the pool. Tasks must not throw.
void ParallelFor(int64_t num_tasks, int64_t task_cost, absl::FunctionRef<void(int64_t)> task);

/// What the tasks of a ParallelFor soon to come will read, in their order: a thread that has no
/// task meanwhile fetches a part of it into its cache. Memory that has gone does no harm.
void FetchWhileIdle(const void* begin, int64_t bytes);

/// In a task of ParallelFor: the one that this thread is likely to run after it. May be out of
/// range.
int64_t LikelyNextTask(int64_t task);

/// The number of threads that ParallelFor may use: at first as many as LibTorch would.
int64_t NumKernelThreads();
/// At least 1; those that are running end with the process.
void SetNumKernelThreads(int64_t count);

}  // namespace tenon

#endif  // TENON_ADAPTERS_KERNELS_PARALLEL_H_
