#include "server/kernels/vector_kernels.h"

namespace tenon {

const VectorKernels& ActiveVectorKernels() {
  switch (ActiveIsa()) {
#if defined(__x86_64__)
    case CpuIsa::kAmx:
    case CpuIsa::kAvx512Bf16:
    case CpuIsa::kAvx512Vnni:
    case CpuIsa::kAvx512:
      return kVectorAvx512;
    case CpuIsa::kAvx2:
      return kVectorAvx2;
#endif
    default:
      return kVectorPortable;
  }
}

}  // namespace tenon
