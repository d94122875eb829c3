// MapFile: a whole file as read-only memory.
#ifndef TENON_SERVER_MODEL_MAPPED_FILE_H_
#define TENON_SERVER_MODEL_MAPPED_FILE_H_

#include <cstddef>
#include <span>
#include <string>

#include "absl/status/statusor.h"
#include "adapters/formats/file_set.h"

namespace tenon {

/// Maps a regular file; the mapping goes when the last copy of `owner` does. Nothing is read until
/// it is touched. The file must not be truncated while it is mapped (SIGBUS otherwise); replacing
/// it by rename is fine. NOT_FOUND when there is none, INTERNAL for other I/O errors; messages hold
/// the path.
absl::StatusOr<FileBytes> MapFile(const std::string& path);

/// Lets the system forget the pages of a mapping that MapFile made; they are read again when
/// touched.
void DropPages(std::span<const std::byte> mapped);

/// Reads a small text file. INVALID_ARGUMENT when it is longer than `max_bytes`.
absl::StatusOr<std::string> ReadSmallFile(const std::string& path, int64_t max_bytes);

}  // namespace tenon

#endif  // TENON_SERVER_MODEL_MAPPED_FILE_H_
