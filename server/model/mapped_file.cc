#include "server/model/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "adapters/base/status_macros.h"

namespace tenon {
namespace {

absl::Status IoError(absl::string_view what, const std::string& path) {
  const std::string message = absl::StrCat(what, " ", path, ": ", std::strerror(errno));
  return errno == ENOENT ? absl::NotFoundError(message) : absl::InternalError(message);
}

constexpr size_t kReadBytes = size_t{1} << 20;

}  // namespace

absl::StatusOr<std::shared_ptr<const MappedFile>> MappedFile::Open(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    return IoError("cannot open", path);
  }
  const std::shared_ptr<MappedFile> file(new MappedFile(path, fd));
  struct stat info{};
  if (fstat(fd, &info) != 0) {
    return IoError("cannot stat", path);
  }
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(path, " is not a regular file"));
  }
  const size_t size = static_cast<size_t>(info.st_size);
  if (size > 0) {
    void* const memory = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (memory == MAP_FAILED) {
      return IoError("cannot map", path);
    }
    file->bytes_ = {static_cast<const std::byte*>(memory), size};
  }
  return file;
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) {
    munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
  }
  close(fd_);
}

void MappedFile::DropPages() const {
  if (!bytes_.empty()) {
    // Advice only: when the system does not take it, the pages stay.
    (void)madvise(const_cast<std::byte*>(bytes_.data()), bytes_.size(), MADV_DONTNEED);
  }
}

absl::Status MappedFile::Read(
    const std::function<void(std::span<const std::byte>)>& consume) const {
  std::vector<std::byte> buffer(std::min(kReadBytes, bytes_.size()));
  for (size_t offset = 0; offset < bytes_.size();) {
    const ssize_t count = pread(fd_, buffer.data(), buffer.size(), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) {
      continue;
    }
    if (count < 0) {
      return IoError("cannot read", path_);
    }
    if (count == 0) {
      return absl::InternalError(absl::StrCat(path_, " was truncated while it was read"));
    }
    consume({buffer.data(), static_cast<size_t>(count)});
    offset += static_cast<size_t>(count);
  }
  return absl::OkStatus();
}

absl::StatusOr<FileBytes> MapFile(const std::string& path) {
  TENON_ASSIGN_OR_RETURN(const std::shared_ptr<const MappedFile> file, MappedFile::Open(path));
  return FileBytes{.bytes = file->bytes(), .owner = file};
}

absl::StatusOr<std::string> ReadSmallFile(const std::string& path, int64_t max_bytes) {
  TENON_ASSIGN_OR_RETURN(const FileBytes file, MapFile(path));
  if (static_cast<int64_t>(file.bytes.size()) > max_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, " has ", file.bytes.size(), " bytes, want at most ", max_bytes));
  }
  return std::string(reinterpret_cast<const char*>(file.bytes.data()), file.bytes.size());
}

}  // namespace tenon
