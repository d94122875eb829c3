#include "tests/device/test_device.h"

#include <cstdlib>
#include <iostream>
#include <string>

#include "adapters/base/status_macros.h"
#include "adapters/kernels/device.h"
#include "tests/device/host_device.h"

namespace tenon {
namespace {

std::string Variable(const char* name, const char* otherwise) {
  const char* const value = std::getenv(name);
  return value == nullptr ? otherwise : value;
}

absl::StatusOr<TestDevice> Select(const char* otherwise) {
  const std::string name = Variable("TENON_TEST_DEVICE", otherwise);
  TestDevice selected;
  if (name == "cpu") {
    return selected;
  }
  std::string library = TENON_HOST_CUDA_LIBRARY;
  if (name == "host") {
    selected.device = HostDevice();
  } else {
    TENON_ASSIGN_OR_RETURN(selected.device, OpenDevice(name));
  }
  selected.fast = KernelKind::kReference;
  if (Variable("TENON_TEST_KERNELS", "fast") == "fast") {
    if (name != "host") {
      TENON_ASSIGN_OR_RETURN(library, FindKernelLibrary());
    }
    TENON_RETURN_IF_ERROR(OpenKernelLibrary(library));
    selected.fast = KernelKind::kCuda;
  }
  return selected;
}

const TestDevice* SelectOrExit(const char* otherwise) {
  const absl::StatusOr<TestDevice> selected = Select(otherwise);
  if (!selected.ok()) {
    std::cerr << "TENON_TEST_DEVICE: " << selected.status() << "\n";
    std::exit(EXIT_FAILURE);
  }
  return new TestDevice(*selected);
}

}  // namespace

const TestDevice& SelectedTestDevice() {
  static const TestDevice* const selected = SelectOrExit("cpu");
  return *selected;
}

const TestDevice& KernelTestDevice() {
  static const TestDevice* const selected = SelectOrExit("host");
  return *selected;
}

}  // namespace tenon
