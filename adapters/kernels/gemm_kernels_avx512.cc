#include "adapters/kernels/int8_kernels_avx2.h"
#include "adapters/kernels/vec_avx512.h"
// The kernels below are made of the vectors above.
#include "adapters/kernels/gemm_kernels_inl.h"
#include "adapters/kernels/pairs_kernels_avx512.h"

namespace tenon {
constinit const GemmKernels kGemmAvx512 = WithWidenedPairs(WithInt8Avx2(MakeGemmKernels()));

}  // namespace tenon
