#include "adapters/store/posix_file.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>

#include "absl/strings/str_cat.h"
#include "adapters/base/errors.h"
#include "adapters/base/sha256.h"
#include "adapters/base/status_macros.h"

namespace tenon {
namespace {

constexpr size_t kReadBytes = size_t{1} << 20;

// Calls `call` again for as long as a signal interrupts it.
template <typename Call>
auto Retry(Call call) {
  decltype(call()) result;
  do {
    result = call();
  } while (result < 0 && errno == EINTR);
  return result;
}

struct CloseDir {
  void operator()(DIR* dir) const { closedir(dir); }
};

absl::StatusOr<UniqueFd> OpenAt(int dirfd, const std::string& path, int flags,
                                absl::string_view context) {
  UniqueFd fd(Retry(
      [&] { return openat(dirfd, path.c_str(), flags | O_NOFOLLOW | O_CLOEXEC, mode_t{0600}); }));
  if (!fd) {
    return ErrnoError(errno, context);
  }
  return fd;
}

}  // namespace

UniqueFd& UniqueFd::operator=(UniqueFd&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

UniqueFd::~UniqueFd() {
  if (fd_ >= 0) {
    close(fd_);  // Durability comes from Sync; an error here has nothing left to tell.
  }
}

absl::Status ErrnoError(int error, absl::string_view context) {
  const std::string message = absl::StrCat(context, ": ", strerror(error));
  switch (error) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return QuotaExceededError("STORE_FULL", "adapter store", message);
    case ENOENT:
      return absl::NotFoundError(message);
    case EACCES:
    case EPERM:
      return absl::PermissionDeniedError(message);
    case EEXIST:
      return absl::AlreadyExistsError(message);
    case ELOOP:
    case ENOTDIR:
      return absl::FailedPreconditionError(message);
    default:
      return absl::UnavailableError(message);
  }
}

absl::StatusOr<UniqueFd> OpenDirectory(int dirfd, const std::string& path,
                                       absl::string_view context) {
  return OpenAt(dirfd, path, O_RDONLY | O_DIRECTORY, context);
}

absl::Status MakeDirectory(int dirfd, const std::string& path, absl::string_view context) {
  if (mkdirat(dirfd, path.c_str(), 0700) != 0 && errno != EEXIST) {
    return ErrnoError(errno, context);
  }
  return absl::OkStatus();
}

absl::StatusOr<UniqueFd> CreateFile(int dirfd, const std::string& name, absl::string_view context) {
  return OpenAt(dirfd, name, O_RDWR | O_CREAT | O_EXCL, context);
}

absl::StatusOr<UniqueFd> OpenFile(int dirfd, const std::string& name, absl::string_view context) {
  return OpenAt(dirfd, name, O_RDONLY, context);
}

absl::Status WriteAll(int fd, std::span<const std::byte> bytes, absl::string_view context) {
  while (!bytes.empty()) {
    const ssize_t written = Retry([&] { return write(fd, bytes.data(), bytes.size()); });
    if (written < 0) {
      return ErrnoError(errno, context);
    }
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
  return absl::OkStatus();
}

absl::Status Sync(int fd, absl::string_view context) {
  if (Retry([&] { return fsync(fd); }) != 0) {
    return ErrnoError(errno, context);
  }
  return absl::OkStatus();
}

absl::Status Rename(int from_dirfd, const std::string& from, int to_dirfd, const std::string& to,
                    absl::string_view context) {
  if (renameat(from_dirfd, from.c_str(), to_dirfd, to.c_str()) != 0) {
    return ErrnoError(errno, context);
  }
  return absl::OkStatus();
}

absl::Status RemoveFile(int dirfd, const std::string& name, absl::string_view context) {
  if (unlinkat(dirfd, name.c_str(), 0) != 0 && errno != ENOENT) {
    return ErrnoError(errno, context);
  }
  return absl::OkStatus();
}

absl::Status RemoveTree(int dirfd, const std::string& name, absl::string_view context) {
  if (unlinkat(dirfd, name.c_str(), 0) == 0 || errno == ENOENT) {
    return absl::OkStatus();
  }
  if (errno != EISDIR && errno != EPERM) {  // Linux says EISDIR, POSIX allows EPERM.
    return ErrnoError(errno, context);
  }
  TENON_ASSIGN_OR_RETURN(const UniqueFd folder, OpenDirectory(dirfd, name, context));
  TENON_ASSIGN_OR_RETURN(const std::vector<std::string> names,
                         ListDirectory(folder.get(), context));
  for (const std::string& child : names) {
    TENON_RETURN_IF_ERROR(RemoveTree(folder.get(), child, context));
  }
  if (unlinkat(dirfd, name.c_str(), AT_REMOVEDIR) != 0 && errno != ENOENT) {
    return ErrnoError(errno, context);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> ListDirectory(int dirfd, absl::string_view context) {
  // fdopendir takes its descriptor over and shares the position of a dup: open the folder anew.
  TENON_ASSIGN_OR_RETURN(UniqueFd fresh, OpenDirectory(dirfd, ".", context));
  std::unique_ptr<DIR, CloseDir> dir(fdopendir(fresh.get()));
  if (dir == nullptr) {
    return ErrnoError(errno, context);
  }
  fresh.Release();  // `dir` closes it now.
  std::vector<std::string> names;
  errno = 0;
  while (const dirent* entry = readdir(dir.get())) {
    const absl::string_view name = entry->d_name;
    if (name != "." && name != "..") {
      names.emplace_back(name);
    }
    errno = 0;
  }
  if (errno != 0) {
    return ErrnoError(errno, context);
  }
  std::sort(names.begin(), names.end());
  return names;
}

absl::StatusOr<int64_t> FileSize(int fd, absl::string_view context) {
  struct stat facts;
  if (fstat(fd, &facts) != 0) {
    return ErrnoError(errno, context);
  }
  return static_cast<int64_t>(facts.st_size);
}

absl::StatusOr<std::string> HashFile(int fd, absl::string_view context) {
  Sha256 hash;
  std::vector<std::byte> buffer(kReadBytes);
  off_t offset = 0;
  while (true) {
    const ssize_t read = Retry([&] { return pread(fd, buffer.data(), buffer.size(), offset); });
    if (read < 0) {
      return ErrnoError(errno, context);
    }
    if (read == 0) {
      return hash.HexDigest();
    }
    hash.Update(std::span(buffer).first(static_cast<size_t>(read)));
    offset += read;
  }
}

absl::StatusOr<FileBytes> MapFile(int fd, absl::string_view context) {
  TENON_ASSIGN_OR_RETURN(const int64_t num_bytes, FileSize(fd, context));
  if (num_bytes == 0) {
    return FileBytes{};  // mmap refuses a length of zero.
  }
  const size_t size = static_cast<size_t>(num_bytes);
  void* const address = mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
  if (address == MAP_FAILED) {
    return ErrnoError(errno, context);
  }
  return FileBytes{std::span(static_cast<const std::byte*>(address), size),
                   std::shared_ptr<const void>(
                       address, [size](const void* p) { munmap(const_cast<void*>(p), size); })};
}

}  // namespace tenon
