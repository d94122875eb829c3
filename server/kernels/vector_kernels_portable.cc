#include "adapters/kernels/vec_portable.h"
// The kernels below are made of the vectors above.
#include "server/kernels/vector_kernels_inl.h"

namespace tenon {

constinit const VectorKernels kVectorPortable = MakeVectorKernels();

}  // namespace tenon
