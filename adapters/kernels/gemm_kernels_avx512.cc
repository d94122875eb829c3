#include "adapters/kernels/vec_avx512.h"
// The kernels below are made of the vectors above.
#include "adapters/kernels/gemm_kernels_inl.h"

namespace tenon {

constinit const GemmKernels kGemmAvx512 = MakeGemmKernels();

}  // namespace tenon
