#include "adapters/kernels/cpu_isa.h"

#include <algorithm>
#include <atomic>

namespace tenon {
namespace {

CpuIsa DetectIsa() {
#if defined(__x86_64__)
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) {
    return CpuIsa::kPortable;
  }
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl")) {
    return CpuIsa::kAvx2;
  }
  return __builtin_cpu_supports("avx512bf16") ? CpuIsa::kAvx512Bf16 : CpuIsa::kAvx512;
#else
  return CpuIsa::kPortable;
#endif
}

CpuIsa PreferredIsa() {
#if defined(__x86_64__)
  if (__builtin_cpu_is("intel")) {
    return std::min(HostIsa(), CpuIsa::kAvx512);
  }
#endif
  return HostIsa();
}

std::atomic<CpuIsa>& Active() {
  static std::atomic<CpuIsa> active(PreferredIsa());
  return active;
}

}  // namespace

CpuIsa HostIsa() {
  static const CpuIsa isa = DetectIsa();
  return isa;
}

CpuIsa ActiveIsa() { return Active().load(std::memory_order_relaxed); }

ScopedCpuIsa::ScopedCpuIsa(CpuIsa isa) : previous_(Active().exchange(std::min(isa, HostIsa()))) {}

ScopedCpuIsa::~ScopedCpuIsa() { Active().store(previous_); }

}  // namespace tenon
