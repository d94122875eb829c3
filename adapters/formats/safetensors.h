// Reader of the safetensors format (https://github.com/huggingface/safetensors#format), for
// untrusted bytes.
#ifndef TENON_ADAPTERS_FORMATS_SAFETENSORS_H_
#define TENON_ADAPTERS_FORMATS_SAFETENSORS_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "adapters/formats/file_set.h"

namespace tenon {

enum class DType : uint8_t { kF64, kF32, kF16, kBF16, kI64, kI32, kI16, kI8, kU8, kBool };

/// Bytes of one element.
int64_t ElementSize(DType dtype);
absl::string_view DTypeName(DType dtype);

/// A tensor's bytes in place, row-major, little-endian. May be unaligned. Borrowed from the file.
struct TensorView {
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  std::span<const std::byte> bytes;

  int64_t num_elements() const;
};

struct SafetensorsLimits {
  int64_t max_header_bytes = 100 << 20;  ///< the format's own cap
  int64_t max_tensors = 100'000;
};

/// The index of one file. Copyable; views stay valid while the FileBytes's owner lives.
struct SafetensorsFile {
  std::map<std::string, TensorView, std::less<>> tensors;
  std::map<std::string, std::string> metadata;
};

/// Parses and checks everything before any tensor is touched: header length, JSON, duplicate names,
/// dtypes, shapes (64-bit products that do not overflow), offsets that neither overlap nor leave
/// gaps nor pass the end. No tensor byte is read or copied. INVALID_ARGUMENT, naming `file_name`
/// and the tensor, otherwise; reason UNSAFE_FILE for pickles and archives under this name.
absl::StatusOr<SafetensorsFile> ParseSafetensors(absl::string_view file_name,
                                                 std::span<const std::byte> bytes,
                                                 const SafetensorsLimits& limits);

}  // namespace tenon

#endif  // TENON_ADAPTERS_FORMATS_SAFETENSORS_H_
