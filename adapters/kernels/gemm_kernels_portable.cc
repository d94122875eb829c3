#include "adapters/kernels/vec_portable.h"
// The kernels below are made of the vectors above.
#include "adapters/kernels/gemm_kernels_inl.h"

namespace tenon {

constinit const GemmKernels kGemmPortable = MakeGemmKernels();

}  // namespace tenon
