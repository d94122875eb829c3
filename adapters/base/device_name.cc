#include "adapters/base/device_name.h"

#include <limits>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace tenon {

absl::StatusOr<DeviceName> ParseDeviceName(absl::string_view name) {
  using Kind = DeviceName::Kind;
  if (name == "auto") {
    return DeviceName{Kind::kAuto};
  }
  if (name == "cpu") {
    return DeviceName{Kind::kCpu};
  }
  if (name == "cuda") {
    return DeviceName{Kind::kCuda};
  }
  absl::string_view number = name;
  int index = 0;
  if (absl::ConsumePrefix(&number, "cuda:") && absl::SimpleAtoi(number, &index) && index >= 0 &&
      index <= std::numeric_limits<int8_t>::max()) {
    return DeviceName{Kind::kCuda, static_cast<int8_t>(index)};
  }
  return absl::InvalidArgumentError(
      absl::StrCat("device \"", name, "\": want auto, cpu, cuda or cuda:N"));
}

}  // namespace tenon
