// What the .cu files of this folder give to the table of the library.
#ifndef TENON_ADAPTERS_KERNELS_CUDA_TABLES_CUH_
#define TENON_ADAPTERS_KERNELS_CUDA_TABLES_CUH_

#include "adapters/kernels/cuda/adapter_kernels.h"

namespace tenon::cuda {

/// The first halves of call.tiles' deltas, which are bf16.
void LaunchShrinkTiles(const DeltaCall& call, void* stream);
const char* ApplyBottlenecks(const BottleneckCall& call, void* stream);

}  // namespace tenon::cuda

#endif  // TENON_ADAPTERS_KERNELS_CUDA_TABLES_CUH_
