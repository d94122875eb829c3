// HostDevice: a device of LibTorch that needs no hardware, for finding code that mixes devices up.
#ifndef TENON_TESTS_DEVICE_HOST_DEVICE_H_
#define TENON_TESTS_DEVICE_HOST_DEVICE_H_

#include <c10/core/Device.h>

namespace tenon {

/// Registers the device, once a process, and gives it (type PrivateUse1).
///
/// Its memory is real, so that results can be compared, but lies behind a mapping that nobody may
/// touch: code that reads or writes a tensor of this device through its pointer crashes, as it
/// would on a GPU. ATen operations reach the memory through a second mapping and run the CPU's
/// kernels there; an operation with tensors of this and of another device throws c10::Error. Copies
/// from and to the CPU are the exception, and tensors without dimensions.
///
/// Not thread-safe. Memory is given back when tensors go, and there are 4 GiB of it.
c10::Device HostDevice();

/// While one lives the device's memory may be touched: the length of a kernel.
class HostDeviceAccess {
 public:
  HostDeviceAccess();
  ~HostDeviceAccess();
  HostDeviceAccess(const HostDeviceAccess&) = delete;
  HostDeviceAccess& operator=(const HostDeviceAccess&) = delete;
};

}  // namespace tenon

#endif  // TENON_TESTS_DEVICE_HOST_DEVICE_H_
