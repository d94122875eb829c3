// What the .cu files of this folder give to the table of the library.
#ifndef TENON_SERVER_KERNELS_CUDA_TABLES_CUH_
#define TENON_SERVER_KERNELS_CUDA_TABLES_CUH_

#include "adapters/kernels/cuda/element.cuh"
#include "server/kernels/cuda/model_kernels.h"

namespace tenon::cuda {

/// Of call.tiles; bf16.
void LaunchTiles(const AttentionCall& call, void* stream);
const char* RunNorm(const NormCall& call, void* stream);
const char* RunGate(const GateCall& call, void* stream);
const char* RunSoftCap(const SoftCapCall& call, void* stream);
const char* RunAdjust(const AdjustCall& call, void* stream);
const char* RunSample(const SampleCall& call, void* stream);

}  // namespace tenon::cuda

#endif  // TENON_SERVER_KERNELS_CUDA_TABLES_CUH_
