#include "adapters/kernels/cpu_isa.h"

#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <algorithm>
#include <atomic>

namespace tenon {
namespace {

// The state of AMX's tiles is 8 KiB a thread, for which a process has to ask Linux once.
bool MayUseAmx() {
#if defined(__x86_64__) && defined(__linux__)
  constexpr int kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM, newer than Debian 12's header
  constexpr int kTileData = 18;
  return __builtin_cpu_supports("amx-tile") && __builtin_cpu_supports("amx-bf16") &&
         __builtin_cpu_supports("amx-int8") &&
         syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

CpuIsa DetectIsa() {
#if defined(__x86_64__)
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) {
    return CpuIsa::kPortable;
  }
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl")) {
    return CpuIsa::kAvx2;
  }
  if (!__builtin_cpu_supports("avx512vnni")) {
    return CpuIsa::kAvx512;
  }
  if (!__builtin_cpu_supports("avx512bf16")) {
    return CpuIsa::kAvx512Vnni;
  }
  return MayUseAmx() ? CpuIsa::kAmx : CpuIsa::kAvx512Bf16;
#else
  return CpuIsa::kPortable;
#endif
}

CpuIsa PreferredIsa() {
#if defined(__x86_64__)
  if (__builtin_cpu_is("intel") && HostIsa() != CpuIsa::kAmx) {
    return std::min(HostIsa(), CpuIsa::kAvx512Vnni);
  }
#endif
  return HostIsa();
}

std::atomic<CpuIsa>& Active() {
  static std::atomic<CpuIsa> active(PreferredIsa());
  return active;
}

}  // namespace

const char* IsaName(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::kPortable:
      return "portable";
    case CpuIsa::kAvx2:
      return "avx2";
    case CpuIsa::kAvx512:
      return "avx512";
    case CpuIsa::kAvx512Vnni:
      return "avx512_vnni";
    case CpuIsa::kAvx512Bf16:
      return "avx512_bf16";
    case CpuIsa::kAmx:
      return "amx";
  }
  return "unknown";
}

CpuIsa HostIsa() {
  static const CpuIsa isa = DetectIsa();
  return isa;
}

CpuIsa ActiveIsa() { return Active().load(std::memory_order_relaxed); }

ScopedCpuIsa::ScopedCpuIsa(CpuIsa isa) : previous_(Active().exchange(std::min(isa, HostIsa()))) {}

ScopedCpuIsa::~ScopedCpuIsa() { Active().store(previous_); }

}  // namespace tenon
