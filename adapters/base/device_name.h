// DeviceName: what --device says.
#ifndef TENON_ADAPTERS_BASE_DEVICE_NAME_H_
#define TENON_ADAPTERS_BASE_DEVICE_NAME_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace tenon {

struct DeviceName {
  enum class Kind { kAuto, kCpu, kCuda };

  Kind kind = Kind::kAuto;
  int8_t index = 0;  ///< of a GPU, >= 0; as wide as LibTorch's
};

/// "auto", "cpu", "cuda" (the first GPU) or "cuda:N". Does not look whether it is there.
/// INVALID_ARGUMENT for anything else.
absl::StatusOr<DeviceName> ParseDeviceName(absl::string_view name);

}  // namespace tenon

#endif  // TENON_ADAPTERS_BASE_DEVICE_NAME_H_
