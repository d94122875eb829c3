// HostMemory: the memory behind HostDevice.
#ifndef TENON_TESTS_DEVICE_HOST_MEMORY_H_
#define TENON_TESTS_DEVICE_HOST_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <map>

namespace tenon {

/// One piece of memory, mapped twice: as the device's addresses, which are not to be touched, and
/// as a shadow that may be. Not thread-safe; lives as long as the process.
class HostMemory {
 public:
  static HostMemory& Get();

  /// A device address, aligned to 512 bytes and filled with 0xFF bytes (NaN): what is read before
  /// it was written shows. Throws std::bad_alloc when the memory is full.
  void* Allocate(size_t bytes);
  void Free(void* device_address);

  /// The device address of what is touched at `shadow`; null when that is not in here.
  void* DeviceAddress(const void* shadow) const {
    const char* const byte = static_cast<const char*>(shadow);
    return byte >= shadow_ && byte < shadow_ + kBytes ? device_ + (byte - shadow_) : nullptr;
  }
  /// Where the bytes of a device address may be touched.
  void* Shadow(const void* device_address) const {
    return shadow_ + (static_cast<const char*>(device_address) - device_);
  }
  void SetAccessible(bool accessible);

 private:
  static constexpr size_t kBytes = size_t{4} << 30;

  HostMemory();

  char* device_ = nullptr;
  char* shadow_ = nullptr;
  size_t high_water_ = 0;
  std::map<size_t, size_t> used_;       // offset -> bytes
  std::multimap<size_t, size_t> free_;  // bytes -> offset
};

}  // namespace tenon

#endif  // TENON_TESTS_DEVICE_HOST_MEMORY_H_
