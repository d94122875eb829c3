#include "adapters/kernels/int8_kernels_avx2.h"
#include "adapters/kernels/vec_avx2.h"
// The kernels below are made of the vectors above.
#include "adapters/kernels/gemm_kernels_inl.h"

namespace tenon {
namespace {

constexpr GemmKernels MakeAvx2Kernels() {
  GemmKernels kernels = MakeGemmKernels();
  kernels.tile_int8 = Int8TileAvx2;
  return kernels;
}

}  // namespace

constinit const GemmKernels kGemmAvx2 = MakeAvx2Kernels();

}  // namespace tenon
