// Which of the CPU's vector instruction sets the kernels use.
#ifndef TENON_ADAPTERS_KERNELS_CPU_ISA_H_
#define TENON_ADAPTERS_KERNELS_CPU_ISA_H_

namespace tenon {

/// In order of preference; each includes the ones before it.
enum class CpuIsa {
  kPortable,    ///< what the compiler makes of plain C++ for the baseline architecture
  kAvx2,        ///< AVX2 and FMA
  kAvx512,      ///< AVX-512 F, BW, DQ and VL
  kAvx512Vnni,  ///< and VNNI
  kAvx512Bf16,  ///< and BF16
  kAmx,         ///< and with AMX tiles of bf16 and int8, where the kernel lets us use them
};

/// "portable", "avx2", ..., "amx".
const char* IsaName(CpuIsa isa);

/// The most that this machine runs.
CpuIsa HostIsa();

/// What the kernels use: the fastest that this machine runs, unless a ScopedCpuIsa lives. That is
/// HostIsa(), but on Intel without AMX kAvx512Vnni is preferred to kAvx512Bf16: widening bf16
/// weights to fp32 was measured there at 155 GFLOP/s a core, the bf16 dot product at 88 (Sapphire
/// Rapids, 576 x 3072, 32 rows), and it rounds less. On Zen 4 it is the other way round.
CpuIsa ActiveIsa();

/// Makes every kernel of the process use `isa` (at most HostIsa()) for as long as it lives: for
/// tests and benchmarks of one instruction set on another's machine. Not to be used while kernels
/// run on another thread.
class ScopedCpuIsa {
 public:
  explicit ScopedCpuIsa(CpuIsa isa);
  ~ScopedCpuIsa();
  ScopedCpuIsa(const ScopedCpuIsa&) = delete;
  ScopedCpuIsa& operator=(const ScopedCpuIsa&) = delete;

 private:
  CpuIsa previous_;
};

}  // namespace tenon

#endif  // TENON_ADAPTERS_KERNELS_CPU_ISA_H_
