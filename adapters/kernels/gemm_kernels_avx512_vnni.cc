#include "adapters/kernels/vec_avx512.h"
// The kernels below are made of the vectors above.
#include "adapters/kernels/gemm_kernels_inl.h"
#include "adapters/kernels/int8_kernels_vnni.h"
#include "adapters/kernels/pairs_kernels_avx512.h"

namespace tenon {
constinit const GemmKernels kGemmAvx512Vnni = WithWidenedPairs(WithInt8Vnni(MakeGemmKernels()));

}  // namespace tenon
