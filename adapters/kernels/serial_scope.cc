// Compiled with OpenMP, whose limit of threads is the calling thread's.
#include "adapters/kernels/serial_scope.h"

#include <ATen/Parallel.h>
#include <omp.h>

namespace tenon {

// Asking makes LibTorch set the thread's limit now and not behind our back.
SerialScope::SerialScope() : num_threads_(at::get_num_threads()) { omp_set_num_threads(1); }

SerialScope::~SerialScope() { omp_set_num_threads(num_threads_); }

}  // namespace tenon
