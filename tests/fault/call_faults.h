// CallFaults: makes one call of the C library on files below a folder fail, in another process.
#ifndef TENON_TESTS_FAULT_CALL_FAULTS_H_
#define TENON_TESTS_FAULT_CALL_FAULTS_H_

#include <array>
#include <atomic>
#include <cstdint>

namespace tenon {

/// The calls that change a store, grouped as the kernel sees them.
enum class FaultCall : int32_t {
  kNone,
  kWrite,   ///< write, writev
  kPwrite,  ///< pwrite64, pwritev
  kFsync,
  kFdatasync,
  kRename,    ///< rename, renameat, renameat2
  kOpen,      ///< open, openat, creat
  kUnlink,    ///< unlink, unlinkat, rmdir
  kMkdir,     ///< mkdir, mkdirat
  kTruncate,  ///< ftruncate, truncate, fallocate
  kCount,
};
inline constexpr int kNumFaultCalls = static_cast<int>(FaultCall::kCount);
inline constexpr std::array<const char*, kNumFaultCalls> kFaultCallNames = {
    "none",   "write", "pwrite64", "fsync", "fdatasync",
    "rename", "open",  "unlink",   "mkdir", "ftruncate"};

/// Instead of an errno: half of the bytes are really written, and their number is the answer.
inline constexpr int32_t kShortWrite = -1;
/// The same, and the next call of the kind gets ENOSPC: a disk that fills in the middle of a write.
inline constexpr int32_t kShortThenFull = -2;

/// What the test and the library that is preloaded into the server share, by a mapped file. The
/// test writes `call` last; the library counts down and takes `call` back when it has struck, so
/// that exactly one call fails.
struct FaultControl {
  char folder[512];                ///< real path; calls on other files pass and are not counted
  std::atomic<int32_t> call;       ///< FaultCall that is to fail; kNone: none
  std::atomic<int32_t> error;      ///< errno, kShortWrite or kShortThenFull
  std::atomic<int64_t> remaining;  ///< calls of that kind up to and with the one that fails
  std::atomic<int64_t> struck;     ///< calls that failed since the start
  std::array<std::atomic<int64_t>, kNumFaultCalls> counts;  ///< calls, failed ones included
};

/// Environment variable with the path of the file that holds a FaultControl.
inline constexpr char kFaultFileVariable[] = "TENON_TEST_FAULT_FILE";

}  // namespace tenon

#endif  // TENON_TESTS_FAULT_CALL_FAULTS_H_
