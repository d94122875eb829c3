// Files the way a crash-safe store needs them: descriptor-relative, never through a symbolic link,
// every error a Status. Messages name what was being done, never a path: they may reach a client.
#ifndef TENON_ADAPTERS_STORE_POSIX_FILE_H_
#define TENON_ADAPTERS_STORE_POSIX_FILE_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "adapters/formats/file_set.h"

namespace tenon {

/// Owns a file descriptor. Movable; not thread-safe.
class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept;
  ~UniqueFd();

  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }

  /// Gives the descriptor away; the caller closes it.
  int Release() { return std::exchange(fd_, -1); }

 private:
  int fd_ = -1;
};

/// The Status of an errno value: "context: reason". RESOURCE_EXHAUSTED for a full disk or quota,
/// NOT_FOUND, PERMISSION_DENIED, and UNAVAILABLE for what may pass (EIO, EMFILE, a read-only
/// mount).
absl::Status ErrnoError(int error, absl::string_view context);

/// Opens a folder; `path` is relative to `dirfd` (AT_FDCWD allowed). A final symlink is refused.
absl::StatusOr<UniqueFd> OpenDirectory(int dirfd, const std::string& path,
                                       absl::string_view context);

/// Makes a folder, mode 0700. An existing one is fine.
absl::Status MakeDirectory(int dirfd, const std::string& path, absl::string_view context);

/// Creates a file that must not exist yet (O_EXCL), for reading and writing, mode 0600.
absl::StatusOr<UniqueFd> CreateFile(int dirfd, const std::string& name, absl::string_view context);

/// Opens an existing regular file for reading.
absl::StatusOr<UniqueFd> OpenFile(int dirfd, const std::string& name, absl::string_view context);

/// Writes all of `bytes` at the file's position; short writes and EINTR are continued.
absl::Status WriteAll(int fd, std::span<const std::byte> bytes, absl::string_view context);

/// fsync of a file or a folder.
absl::Status Sync(int fd, absl::string_view context);

/// Moves `from` to `to` atomically, over what is there.
absl::Status Rename(int from_dirfd, const std::string& from, int to_dirfd, const std::string& to,
                    absl::string_view context);

/// Removes a file; an absent one is fine.
absl::Status RemoveFile(int dirfd, const std::string& name, absl::string_view context);

/// Removes `name` (a file, or a folder with all below it); an absent one is fine.
absl::Status RemoveTree(int dirfd, const std::string& name, absl::string_view context);

/// The names in a folder, without "." and "..", sorted.
absl::StatusOr<std::vector<std::string>> ListDirectory(int dirfd, absl::string_view context);

/// Size of an open file in bytes.
absl::StatusOr<int64_t> FileSize(int fd, absl::string_view context);

/// sha256 of a whole file as lower-case hex. Reads with pread, so that a failing disk is a Status;
/// a mapping would raise SIGBUS.
absl::StatusOr<std::string> HashFile(int fd, absl::string_view context);

/// Maps a whole file read-only. The bytes stay valid after the file is unlinked, renamed or closed.
absl::StatusOr<FileBytes> MapFile(int fd, absl::string_view context);

}  // namespace tenon

#endif  // TENON_ADAPTERS_STORE_POSIX_FILE_H_
