#include "adapters/kernels/vec_avx2.h"
// The kernels below are made of the vectors above.
#include "server/kernels/vector_kernels_inl.h"

namespace tenon {

constinit const VectorKernels kVectorAvx2 = MakeVectorKernels();

}  // namespace tenon
