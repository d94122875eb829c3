// Compiled with OpenMP, whose limit of threads is the calling thread's.
#include "adapters/kernels/serial_scope.h"

#include <ATen/Parallel.h>
#include <omp.h>

#include "adapters/kernels/parallel.h"

namespace tenon {
namespace {

thread_local bool active = false;

// Asking makes LibTorch set the thread's limit now and not behind our back, after the kernels'
// count was taken from it.
int LibTorchThreads() {
  NumKernelThreads();
  return at::get_num_threads();
}

}  // namespace

LibTorchSerialScope::LibTorchSerialScope() : num_threads_(LibTorchThreads()) {
  omp_set_num_threads(1);
}

LibTorchSerialScope::~LibTorchSerialScope() { omp_set_num_threads(num_threads_); }

SerialScope::SerialScope() : was_active_(active) { active = true; }

SerialScope::~SerialScope() { active = was_active_; }

bool SerialScope::IsActive() { return active; }

}  // namespace tenon
