#include "adapters/kernels/vec_avx512.h"
// The kernels below are made of the vectors above.
#include "server/kernels/vector_kernels_inl.h"

namespace tenon {

constinit const VectorKernels kVectorAvx512 = MakeVectorKernels();

}  // namespace tenon
