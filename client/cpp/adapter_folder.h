// AdapterFolder: the files of an adapter on the client's disk, as an upload sends them.
#ifndef TENON_CLIENT_CPP_ADAPTER_FOLDER_H_
#define TENON_CLIENT_CPP_ADAPTER_FOLDER_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace tenon {

/// Regular files of one folder, sorted by name; sub-folders and hidden files are left out.
class AdapterFolder {
 public:
  /// NOT_FOUND when `path` is no folder or holds no files.
  static absl::StatusOr<AdapterFolder> Open(const std::string& path);

  const std::vector<std::string>& file_names() const { return file_names_; }
  int64_t num_bytes() const { return num_bytes_; }

  /// Reads all files in order, in chunks of at most `chunk_bytes` (an empty file is one empty
  /// chunk), and returns the digest of what was read as UploadDigest in adapters.proto defines it.
  /// Stops early, with CANCELLED, when `on_chunk` returns false.
  absl::StatusOr<std::string> Read(
      int64_t chunk_bytes,
      const std::function<bool(const std::string& file_name, absl::string_view chunk)>& on_chunk)
      const;

 private:
  AdapterFolder(std::string path, std::vector<std::string> file_names, int64_t num_bytes)
      : path_(std::move(path)), file_names_(std::move(file_names)), num_bytes_(num_bytes) {}

  std::string path_;
  std::vector<std::string> file_names_;
  int64_t num_bytes_;
};

}  // namespace tenon

#endif  // TENON_CLIENT_CPP_ADAPTER_FOLDER_H_
