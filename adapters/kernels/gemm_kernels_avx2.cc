#include "adapters/kernels/int8_kernels_avx2.h"
#include "adapters/kernels/vec_avx2.h"
// The kernels below are made of the vectors above.
#include "adapters/kernels/gemm_kernels_inl.h"

namespace tenon {
constinit const GemmKernels kGemmAvx2 = WithInt8Avx2(MakeGemmKernels());

}  // namespace tenon
