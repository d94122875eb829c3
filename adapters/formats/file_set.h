// FileSet: the files of one adapter as read-only bytes, wherever they live.
#ifndef TENON_ADAPTERS_FORMATS_FILE_SET_H_
#define TENON_ADAPTERS_FORMATS_FILE_SET_H_

#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace tenon {

/// Bytes and what keeps them alive (a mapping, a string). Cheap to copy.
struct FileBytes {
  std::span<const std::byte> bytes;
  std::shared_ptr<const void> owner;
};

/// File name -> bytes.
using FileSet = std::map<std::string, FileBytes, std::less<>>;

/// Whether `name` is one of the file names that an adapter folder may hold: adapter_config.json,
/// adapter_model.safetensors, adapter.safetensors (AdapterHub) and the ones that are accepted and
/// ignored.
bool IsAdapterFileName(absl::string_view name);

/// OK for an adapter file name. INVALID_ARGUMENT otherwise; for pickled weights (reason
/// UNSAFE_FILE) the message says how to save them as safetensors, for all other names (reason
/// UNKNOWN_FILE) which names are known.
absl::Status CheckAdapterFileName(absl::string_view name);

}  // namespace tenon

#endif  // TENON_ADAPTERS_FORMATS_FILE_SET_H_
