// DeviceTables: what kernels read beside tensors, written on the host and copied at once.
#ifndef TENON_ADAPTERS_KERNELS_DEVICE_TABLES_H_
#define TENON_ADAPTERS_KERNELS_DEVICE_TABLES_H_

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

namespace tenon {

/// A table of DeviceTables: where it begins, and how many entries it has. Good until Clear.
template <typename T>
struct DeviceTable {
  size_t begin = 0;  ///< bytes
  size_t count = 0;
};

/// The tables of one step in one piece of a device's memory, with one copy for all of them.
/// The host's side is page-locked for a GPU, so that nothing waits for the copy.
///
///   tables.Clear();
///   const DeviceTable<int32_t> blocks = tables.Add<int32_t>(ids);
///   tables.Upload();
///   call.blocks = tables.Data(blocks);
///
/// Not thread-safe. Whoever fills it again waits first for the stream that the copy was given to.
class DeviceTables {
 public:
  explicit DeviceTables(at::Device device) : device_(device) {}

  /// Takes memory for that many bytes; as long as they are enough, tables keep their addresses.
  void Reserve(size_t bytes);
  size_t reserved() const;

  /// Forgets all tables.
  void Clear() { image_.clear(); }
  /// Adds a table behind those before, 16-byte aligned, with room for `capacity` entries if that is
  /// more than there are: what follows begins at the same address whatever `entries` has.
  template <typename T>
  DeviceTable<T> Add(std::span<const T> entries, size_t capacity = 0) {
    static_assert(std::is_trivially_copyable_v<T> && alignof(T) <= kAlignment);
    return {Append(std::as_bytes(entries), capacity * sizeof(T)), entries.size()};
  }
  /// Bytes of all tables.
  size_t size() const { return image_.size(); }

  /// Copies the tables on LibTorch's current stream. Once, behind the last Add.
  void Upload();

  /// The table in the device's memory, behind Upload.
  template <typename T>
  const T* Data(DeviceTable<T> table) const {
    return reinterpret_cast<const T*>(Address(table.begin));
  }
  /// The same as a tensor [count] int64, which keeps the memory.
  at::Tensor Indices(DeviceTable<int64_t> table) const;

 private:
  static constexpr size_t kAlignment = 16;

  /// The offset of the bytes.
  size_t Append(std::span<const std::byte> bytes, size_t capacity);
  const std::byte* Address(size_t offset) const;

  at::Device device_;
  std::vector<std::byte> image_;
  at::Tensor host_, memory_;  // bytes; as long as each other
};

}  // namespace tenon

#endif  // TENON_ADAPTERS_KERNELS_DEVICE_TABLES_H_
