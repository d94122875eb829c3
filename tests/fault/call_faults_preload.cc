// The library that a test preloads into the server (LD_PRELOAD) to make its calls fail: see
// call_faults.h.
//
// It stands before the C library's own functions, counts calls on files below the folder and passes
// all of them on but the one that is to fail. strace cannot write half of a buffer, and stops every
// thread at every call; that this sees the very calls that the kernel sees is checked by the test,
// with strace.
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "tests/fault/call_faults.h"

namespace {

using tenon::FaultCall;
using tenon::FaultControl;

FaultControl* MapControl() {
  const char* const path = std::getenv(tenon::kFaultFileVariable);
  if (path == nullptr) {
    return nullptr;
  }
  // syscall-free of this library's own open(): the loader has not finished yet.
  static const auto real_open =
      reinterpret_cast<int (*)(const char*, int, ...)>(dlsym(RTLD_NEXT, "open"));
  const int fd = real_open(path, O_RDWR | O_CLOEXEC);
  if (fd < 0) {
    return nullptr;
  }
  void* const address =
      mmap(nullptr, sizeof(FaultControl), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  return address == MAP_FAILED ? nullptr : static_cast<FaultControl*>(address);
}

FaultControl* Control() {
  static FaultControl* const control = MapControl();
  return control;
}

bool IsBelow(const char* path) {
  const FaultControl* const control = Control();
  const size_t length = control == nullptr ? 0 : strnlen(control->folder, sizeof(control->folder));
  return length > 0 && std::strncmp(path, control->folder, length) == 0 &&
         (path[length] == '/' || path[length] == '\0');
}

// The path of an open file. False when it has none.
bool PathOf(int fd, char (&path)[PATH_MAX]) {
  char link[64];
  std::snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
  const ssize_t length = readlink(link, path, sizeof(path) - 1);
  path[length < 0 ? 0 : length] = '\0';
  return length > 0;
}

bool IsBelow(int fd) {
  if (Control() == nullptr) {
    return false;
  }
  const int kept = errno;
  char path[PATH_MAX];
  const bool below = PathOf(fd, path) && IsBelow(path);
  errno = kept;
  return below;
}

bool IsBelow(int dirfd, const char* path) {
  if (Control() == nullptr || path == nullptr) {
    return false;
  }
  return path[0] == '/' || dirfd == AT_FDCWD ? IsBelow(path) : IsBelow(dirfd);
}

// Counts a call. Answers the errno with which it is to fail, kShortWrite, or 0.
int32_t Strike(FaultCall call, bool below) {
  FaultControl* const control = Control();
  if (control == nullptr || !below) {
    return 0;
  }
  control->counts[static_cast<size_t>(call)].fetch_add(1);
  int32_t armed = static_cast<int32_t>(call);
  if (control->call.load() != armed || control->remaining.fetch_sub(1) != 1 ||
      !control->call.compare_exchange_strong(armed, static_cast<int32_t>(FaultCall::kNone))) {
    return 0;
  }
  control->struck.fetch_add(1);
  const int32_t error = control->error.load();
  if (error == tenon::kShortThenFull) {
    control->error = ENOSPC;
    control->remaining = 1;
    control->call = armed;
  }
  return error;
}

template <typename Function>
Function Next(const char* name) {
  return reinterpret_cast<Function>(dlsym(RTLD_NEXT, name));
}

// Passes the call on unless it is the one that fails.
template <typename Result, typename Pass>
Result Run(FaultCall call, bool below, Pass pass) {
  const int32_t error = Strike(call, below);
  if (error > 0) {
    errno = error;
    return -1;
  }
  return pass();
}

// As Run, for a buffer of `size`; `pass` takes how much of it.
template <typename Pass>
ssize_t RunWrite(FaultCall call, bool below, size_t size, Pass pass) {
  const int32_t error = Strike(call, below);
  if (error > 0) {
    errno = error;
    return -1;
  }
  return pass(error < 0 && size > 1 ? size / 2 : size);
}

}  // namespace

#define TENON_NEXT(name) static const auto next = Next<decltype(&::name)>(#name)

extern "C" {

ssize_t write(int fd, const void* buffer, size_t size) {
  TENON_NEXT(write);
  return RunWrite(FaultCall::kWrite, IsBelow(fd), size,
                  [&](size_t part) { return next(fd, buffer, part); });
}
ssize_t writev(int fd, const iovec* parts, int count) {
  TENON_NEXT(writev);
  return Run<ssize_t>(FaultCall::kWrite, IsBelow(fd), [&] { return next(fd, parts, count); });
}
ssize_t pwrite(int fd, const void* buffer, size_t size, off_t offset) {
  TENON_NEXT(pwrite);
  return RunWrite(FaultCall::kPwrite, IsBelow(fd), size,
                  [&](size_t part) { return next(fd, buffer, part, offset); });
}
ssize_t pwrite64(int fd, const void* buffer, size_t size, off64_t offset) {
  TENON_NEXT(pwrite64);
  return RunWrite(FaultCall::kPwrite, IsBelow(fd), size,
                  [&](size_t part) { return next(fd, buffer, part, offset); });
}
int fsync(int fd) {
  TENON_NEXT(fsync);
  return Run<int>(FaultCall::kFsync, IsBelow(fd), [&] { return next(fd); });
}
int fdatasync(int fd) {
  TENON_NEXT(fdatasync);
  return Run<int>(FaultCall::kFdatasync, IsBelow(fd), [&] { return next(fd); });
}
int rename(const char* from, const char* to) noexcept {
  TENON_NEXT(rename);
  return Run<int>(FaultCall::kRename, IsBelow(AT_FDCWD, to), [&] { return next(from, to); });
}
int renameat(int from_fd, const char* from, int to_fd, const char* to) noexcept {
  TENON_NEXT(renameat);
  return Run<int>(FaultCall::kRename, IsBelow(to_fd, to),
                  [&] { return next(from_fd, from, to_fd, to); });
}
int renameat2(int from_fd, const char* from, int to_fd, const char* to,
              unsigned int flags) noexcept {
  TENON_NEXT(renameat2);
  return Run<int>(FaultCall::kRename, IsBelow(to_fd, to),
                  [&] { return next(from_fd, from, to_fd, to, flags); });
}
int unlink(const char* path) noexcept {
  TENON_NEXT(unlink);
  return Run<int>(FaultCall::kUnlink, IsBelow(AT_FDCWD, path), [&] { return next(path); });
}
int rmdir(const char* path) noexcept {
  TENON_NEXT(rmdir);
  return Run<int>(FaultCall::kUnlink, IsBelow(AT_FDCWD, path), [&] { return next(path); });
}
int unlinkat(int dirfd, const char* path, int flags) noexcept {
  TENON_NEXT(unlinkat);
  return Run<int>(FaultCall::kUnlink, IsBelow(dirfd, path),
                  [&] { return next(dirfd, path, flags); });
}
int mkdir(const char* path, mode_t mode) noexcept {
  TENON_NEXT(mkdir);
  return Run<int>(FaultCall::kMkdir, IsBelow(AT_FDCWD, path), [&] { return next(path, mode); });
}
int mkdirat(int dirfd, const char* path, mode_t mode) noexcept {
  TENON_NEXT(mkdirat);
  return Run<int>(FaultCall::kMkdir, IsBelow(dirfd, path), [&] { return next(dirfd, path, mode); });
}
int ftruncate(int fd, off_t size) noexcept {
  TENON_NEXT(ftruncate);
  return Run<int>(FaultCall::kTruncate, IsBelow(fd), [&] { return next(fd, size); });
}
int ftruncate64(int fd, off64_t size) noexcept {
  TENON_NEXT(ftruncate64);
  return Run<int>(FaultCall::kTruncate, IsBelow(fd), [&] { return next(fd, size); });
}

// The mode is passed on whether there is one or not: the kernel looks at it only when it creates.
#define TENON_OPEN(name)                                                  \
  int name(const char* path, int flags, ...) {                            \
    static const auto next = Next<int (*)(const char*, int, ...)>(#name); \
    va_list rest;                                                         \
    va_start(rest, flags);                                                \
    const mode_t mode = va_arg(rest, mode_t);                             \
    va_end(rest);                                                         \
    return Run<int>(FaultCall::kOpen, IsBelow(AT_FDCWD, path),            \
                    [&] { return next(path, flags, mode); });             \
  }
#define TENON_OPENAT(name)                                                     \
  int name(int dirfd, const char* path, int flags, ...) {                      \
    static const auto next = Next<int (*)(int, const char*, int, ...)>(#name); \
    va_list rest;                                                              \
    va_start(rest, flags);                                                     \
    const mode_t mode = va_arg(rest, mode_t);                                  \
    va_end(rest);                                                              \
    return Run<int>(FaultCall::kOpen, IsBelow(dirfd, path),                    \
                    [&] { return next(dirfd, path, flags, mode); });           \
  }
TENON_OPEN(open)
TENON_OPEN(open64)
TENON_OPENAT(openat)
TENON_OPENAT(openat64)

}  // extern "C"
