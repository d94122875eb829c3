#include "adapters/kernels/device.h"

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/Stream.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/util/Exception.h>
#include <dlfcn.h>

#include <cstdlib>
#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "adapters/base/device_name.h"
#include "adapters/base/status_macros.h"

namespace tenon {
namespace {

// The least that libtorch_cuda's own kernels and Tenon's are compiled for.
constexpr int kMinMajorCapability = 8;
// CUDA driver API, cuda.h: CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR.
constexpr int kMajorCapabilityAttribute = 75;

void* kernel_library = nullptr;

std::string LoaderError() {
  const char* const error = dlerror();
  return error == nullptr ? "unknown error" : error;
}

// A function of the driver's library, which has a C interface of its own for as long as there is
// CUDA.
template <typename... Arguments>
absl::Status CallDriver(void* driver, const char* name, Arguments... arguments) {
  using Function = int (*)(Arguments...);
  const auto function = reinterpret_cast<Function>(dlsym(driver, name));
  if (function == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat("the NVIDIA driver has no ", name));
  }
  if (const int error = function(arguments...); error != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("the NVIDIA driver's ", name, " fails with ", error));
  }
  return absl::OkStatus();
}

// Whether the driver is there and has a GPU of that number that is new enough.
absl::Status CheckGpu(int index) {
  void* const driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_GLOBAL);
  if (driver == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat("no NVIDIA driver: ", LoaderError()));
  }
  TENON_RETURN_IF_ERROR(CallDriver(driver, "cuInit", 0u));
  int count = 0;
  TENON_RETURN_IF_ERROR(CallDriver(driver, "cuDeviceGetCount", &count));
  if (index >= count) {
    return absl::FailedPreconditionError(
        absl::StrCat("no GPU ", index, ": the NVIDIA driver has ", count));
  }
  int device = 0, major = 0;
  TENON_RETURN_IF_ERROR(CallDriver(driver, "cuDeviceGet", &device, index));
  TENON_RETURN_IF_ERROR(
      CallDriver(driver, "cuDeviceGetAttribute", &major, kMajorCapabilityAttribute, device));
  if (major < kMinMajorCapability) {
    return absl::FailedPreconditionError(absl::StrCat("GPU ", index, " has compute capability ",
                                                      major, ".x, at least ", kMinMajorCapability,
                                                      ".0 is needed"));
  }
  return absl::OkStatus();
}

// The folder of the library or program that has this address, or "".
std::filesystem::path FolderOf(const void* address) {
  Dl_info info;
  return dladdr(address, &info) != 0 && info.dli_fname != nullptr
             ? std::filesystem::path(info.dli_fname).parent_path()
             : std::filesystem::path();
}

// Registers ATen's operations on GPUs. LibTorch's libraries find each other beside libc10.so.
absl::Status OpenTorchCuda() {
  const std::string path =
      FolderOf(reinterpret_cast<const void*>(&c10::GetCPUAllocator)) / "libtorch_cuda.so";
  if (dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL) == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat(
        "LibTorch's CUDA library cannot be opened: ", LoaderError(),
        "; it comes with the wheel of torch 2.11.0 and the nvidia-* wheels that it requires"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<c10::Device> OpenDevice(absl::string_view name) {
  TENON_ASSIGN_OR_RETURN(const DeviceName wanted, ParseDeviceName(name));
  if (wanted.kind == DeviceName::Kind::kCpu) {
    return c10::Device(c10::kCPU);
  }
  absl::Status usable = CheckGpu(wanted.index);
  if (usable.ok()) {
    usable = OpenTorchCuda();
  }
  if (usable.ok()) {
    return c10::Device(c10::kCUDA, wanted.index);
  }
  if (wanted.kind == DeviceName::Kind::kAuto) {
    return c10::Device(c10::kCPU);
  }
  return usable;
}

absl::StatusOr<std::string> FindKernelLibrary() {
  if (const char* const named = std::getenv("TENON_CUDA_LIBRARY"); named != nullptr) {
    return std::string(named);
  }
  std::error_code error;
  const std::filesystem::path folder =
      std::filesystem::read_symlink("/proc/self/exe", error).parent_path();
  const std::filesystem::path places[] = {folder / "libtenon_cuda.so",
                                          folder.parent_path() / "lib/tenon/libtenon_cuda.so"};
  for (const std::filesystem::path& place : places) {
    if (std::filesystem::exists(place, error)) {
      return place.string();
    }
  }
  return absl::NotFoundError(absl::StrCat("no CUDA kernels: neither ", places[0].string(), " nor ",
                                          places[1].string(),
                                          " is there; build with -DTENON_CUDA=ON"));
}

absl::Status OpenKernelLibrary(const std::string& path) {
  void* const library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat("CUDA kernels cannot be opened: ", LoaderError()));
  }
  kernel_library = library;
  return absl::OkStatus();
}

const void* FindKernelTable(const char* symbol) {
  TORCH_CHECK(kernel_library != nullptr, "no library of CUDA kernels was opened");
  const auto table = reinterpret_cast<const void* (*)()>(dlsym(kernel_library, symbol));
  TORCH_CHECK(table != nullptr, "the library of CUDA kernels has no ", symbol,
              ": it is of another version");
  return table();
}

std::optional<int64_t> FreeDeviceBytes(c10::Device device) {
  const c10::DeviceGuard guard(device);
  void* const driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
  size_t free = 0, total = 0;
  if (driver == nullptr || !CallDriver(driver, "cuMemGetInfo_v2", &free, &total).ok()) {
    return std::nullopt;
  }
  return static_cast<int64_t>(free);
}

void* CurrentStream(c10::Device device) {
  return c10::impl::getDeviceGuardImpl(device.type())->getStream(device).native_handle();
}

c10::Stream NewStream(c10::Device device) {
  return c10::impl::getDeviceGuardImpl(device.type())->getStreamFromGlobalPool(device);
}

void WaitForStream(c10::Device device) {
  if (!device.is_cpu()) {
    const c10::impl::DeviceGuardImplInterface* const guard =
        c10::impl::getDeviceGuardImpl(device.type());
    guard->synchronizeStream(guard->getStream(device));
  }
}

}  // namespace tenon
