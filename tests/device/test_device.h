// The device that device-parametrised tests run on.
#ifndef TENON_TESTS_DEVICE_TEST_DEVICE_H_
#define TENON_TESTS_DEVICE_TEST_DEVICE_H_

#include <c10/core/Device.h>

#include "server/kernels/linear.h"

namespace tenon {

/// Where tests compute, and with what in place of the CPU's kernels.
struct TestDevice {
  c10::Device device = c10::kCPU;
  KernelKind fast = KernelKind::kCpu;

  bool is_cpu() const { return device.is_cpu(); }
  /// A test written for `kernels` on the CPU runs with these here.
  KernelKind KernelsFor(KernelKind kernels) const {
    return kernels == KernelKind::kReference ? kernels : fast;
  }
};

/// As the environment says:
///   TENON_TEST_DEVICE   cpu (the default), host (HostDevice), cuda or cuda:N
///   TENON_TEST_KERNELS  fast (the default) or reference: what `fast` is elsewhere than on the CPU
/// On "host" the fast kernels are those of the .cu files, compiled for the host. Opens what there
/// is to open, once; ends the process with a message when that fails.
const TestDevice& SelectedTestDevice();

/// The same, but "host" where the environment says nothing: for tests of the CUDA kernels
/// themselves.
const TestDevice& KernelTestDevice();

}  // namespace tenon

#endif  // TENON_TESTS_DEVICE_TEST_DEVICE_H_
