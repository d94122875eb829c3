#include "adapters/kernels/gemm_kernels.h"

namespace tenon {

const GemmKernels& ActiveGemmKernels() {
  switch (ActiveIsa()) {
#if defined(__x86_64__)
    case CpuIsa::kAmx:
      return kGemmAmx;
    case CpuIsa::kAvx512Bf16:
      return kGemmAvx512Bf16;
    case CpuIsa::kAvx512Vnni:
      return kGemmAvx512Vnni;
    case CpuIsa::kAvx512:
      return kGemmAvx512;
    case CpuIsa::kAvx2:
      return kGemmAvx2;
#endif
    default:
      return kGemmPortable;
  }
}

}  // namespace tenon
