#include "adapters/kernels/device_tables.h"

#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cstring>

namespace tenon {

void DeviceTables::Reserve(size_t bytes) {
  if (bytes <= reserved()) {
    return;
  }
  const auto size = static_cast<int64_t>(bytes);
  const auto options = at::TensorOptions(at::kByte);
  host_ = at::empty({size}, options.pinned_memory(device_.is_cuda()));
  memory_ = at::empty({size}, options.device(device_));
}

size_t DeviceTables::reserved() const { return memory_.defined() ? memory_.nbytes() : 0; }

size_t DeviceTables::Append(std::span<const std::byte> bytes, size_t capacity) {
  const size_t begin = (image_.size() + kAlignment - 1) / kAlignment * kAlignment;
  image_.resize(begin + std::max(bytes.size(), capacity));
  std::copy(bytes.begin(), bytes.end(), image_.begin() + static_cast<ptrdiff_t>(begin));
  return begin;
}

void DeviceTables::Upload() {
  if (image_.empty()) {
    return;
  }
  Reserve(image_.size());
  const auto size = static_cast<int64_t>(image_.size());
  std::memcpy(host_.mutable_data_ptr(), image_.data(), image_.size());
  memory_.narrow(0, 0, size).copy_(host_.narrow(0, 0, size), /*non_blocking=*/true);
}

const std::byte* DeviceTables::Address(size_t offset) const {
  TORCH_CHECK(offset <= reserved(), "device tables: byte ", offset, " of ", reserved());
  if (reserved() == 0) {
    return nullptr;  // there are no entries
  }
  return static_cast<const std::byte*>(memory_.const_data_ptr()) + offset;
}

at::Tensor DeviceTables::Indices(DeviceTable<int64_t> table) const {
  const auto begin = static_cast<int64_t>(table.begin);
  const auto bytes = static_cast<int64_t>(table.count * sizeof(int64_t));
  return memory_.narrow(0, begin, bytes).view(at::kLong);
}

}  // namespace tenon
