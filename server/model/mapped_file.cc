#include "server/model/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>

#include "absl/strings/str_cat.h"
#include "adapters/base/status_macros.h"

namespace tenon {
namespace {

absl::Status IoError(absl::string_view what, const std::string& path) {
  const std::string message = absl::StrCat(what, " ", path, ": ", std::strerror(errno));
  return errno == ENOENT ? absl::NotFoundError(message) : absl::InternalError(message);
}

// Closes a descriptor when it leaves its scope.
class ScopedFd {
 public:
  explicit ScopedFd(int fd) : fd_(fd) {}
  ~ScopedFd() {
    if (fd_ >= 0) {
      close(fd_);
    }
  }
  ScopedFd(const ScopedFd&) = delete;
  ScopedFd& operator=(const ScopedFd&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

}  // namespace

absl::StatusOr<FileBytes> MapFile(const std::string& path) {
  const ScopedFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd.get() < 0) {
    return IoError("cannot open", path);
  }
  struct stat info {};
  if (fstat(fd.get(), &info) != 0) {
    return IoError("cannot stat", path);
  }
  if (!S_ISREG(info.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(path, " is not a regular file"));
  }
  const size_t size = static_cast<size_t>(info.st_size);
  if (size == 0) {
    return FileBytes{};
  }
  void* const memory = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd.get(), 0);
  if (memory == MAP_FAILED) {
    return IoError("cannot map", path);
  }
  FileBytes file;
  file.bytes = {static_cast<const std::byte*>(memory), size};
  file.owner = std::shared_ptr<const void>(
      memory, [size](const void* mapped) { munmap(const_cast<void*>(mapped), size); });
  return file;
}

void DropPages(std::span<const std::byte> mapped) {
  if (!mapped.empty()) {
    // Advice: a mapping that keeps its pages is as correct.
    madvise(const_cast<std::byte*>(mapped.data()), mapped.size(), MADV_DONTNEED);
  }
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
