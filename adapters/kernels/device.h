// Devices, and the libraries that computing on a GPU takes.
#ifndef TENON_ADAPTERS_KERNELS_DEVICE_H_
#define TENON_ADAPTERS_KERNELS_DEVICE_H_

#include <c10/core/Device.h>
#include <c10/core/Stream.h>

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace tenon {

/// The device of that name (see ParseDeviceName; "auto" is the first GPU when it can be used, else
/// the CPU), ready to be computed on: for a GPU the NVIDIA driver and LibTorch's CUDA libraries are
/// opened, which stay open. INVALID_ARGUMENT on another name; FAILED_PRECONDITION that says what is
/// missing (a driver, a GPU of that number, compute capability 8.0, a library). Not thread-safe:
/// call it at start.
absl::StatusOr<c10::Device> OpenDevice(absl::string_view name);

/// The file of Tenon's CUDA kernels: $TENON_CUDA_LIBRARY, or libtenon_cuda.so beside the program or
/// in ../lib/tenon. NOT_FOUND, naming where it was looked for, when there is none.
absl::StatusOr<std::string> FindKernelLibrary();

/// Opens that file, whose tables KernelTable then finds; it stays open. FAILED_PRECONDITION when it
/// cannot be opened. Not thread-safe: call it at start, after OpenDevice.
absl::Status OpenKernelLibrary(const std::string& path);

/// The table of kernels that the library's function of that name gives. Throws c10::Error when no
/// library was opened or it has no such function.
const void* FindKernelTable(const char* symbol);

template <typename T>
const T& KernelTable(const char* symbol) {
  return *static_cast<const T*>(FindKernelTable(symbol));
}

/// Bytes of the GPU's memory that nobody has; none when the driver does not tell. Something must
/// have been computed on the device before.
std::optional<int64_t> FreeDeviceBytes(c10::Device device);

/// The stream (cudaStream_t) that LibTorch uses now on `device`.
void* CurrentStream(c10::Device device);

/// A stream for one thread's work on a GPU, which waits for no other stream's.
c10::Stream NewStream(c10::Device device);

/// Waits until this thread's current stream has done all that it was given, as who hands a tensor
/// to a thread with another stream has to. Returns at once for the CPU.
void WaitForStream(c10::Device device);

}  // namespace tenon

#endif  // TENON_ADAPTERS_KERNELS_DEVICE_H_
