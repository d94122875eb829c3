// MappedFile: a whole file as read-only memory.
#ifndef TENON_SERVER_MODEL_MAPPED_FILE_H_
#define TENON_SERVER_MODEL_MAPPED_FILE_H_

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "adapters/formats/file_set.h"

namespace tenon {

/// A regular file, mapped. Nothing is read until it is touched, and what was touched stays in
/// memory until DropPages. The file must not be truncated meanwhile (SIGBUS otherwise); replacing
/// it by rename is fine. Thread-safe.
class MappedFile {
 public:
  /// NOT_FOUND when there is none, INVALID_ARGUMENT when it is not a regular file, INTERNAL for
  /// other I/O errors; messages hold the path.
  static absl::StatusOr<std::shared_ptr<const MappedFile>> Open(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return bytes_; }

  /// Gives the memory of all touched pages back; a page that is touched again is read again.
  void DropPages() const;

  /// Calls `consume` with the file's bytes, in order and in pieces, without touching the mapping.
  absl::Status Read(const std::function<void(std::span<const std::byte>)>& consume) const;

 private:
  MappedFile(std::string path, int fd) : path_(std::move(path)), fd_(fd) {}

  const std::string path_;
  const int fd_;
  std::span<const std::byte> bytes_;
};

/// A mapped file's bytes, with the file as their owner. Errors as MappedFile::Open.
absl::StatusOr<FileBytes> MapFile(const std::string& path);

/// Reads a small text file. INVALID_ARGUMENT when it is longer than `max_bytes`.
absl::StatusOr<std::string> ReadSmallFile(const std::string& path, int64_t max_bytes);

}  // namespace tenon

#endif  // TENON_SERVER_MODEL_MAPPED_FILE_H_
