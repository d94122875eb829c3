// Segmented shrink and expand, with gains and offsets behind. A block has a group of rows, so that
// each matrix is read once for all of them; ranks are exact, whatever else the call holds.
#include "adapters/kernels/cuda/adapter_kernels.h"
#include "adapters/kernels/cuda/element.cuh"
#include "adapters/kernels/cuda/panel.cuh"
#include "adapters/kernels/cuda/tables.cuh"

namespace tenon::cuda {
namespace {

constexpr int kShrinkWarps = 8;
constexpr int kExpandThreads = 128;

// The rows themselves, in fp32: what a dense term expands.
template <typename T>
__device__ void Widen(const T* x, int64_t x_stride, const RowGroup& group, const DeltaTerm& term,
                      float* shrunk) {
  const int first = blockIdx.y * blockDim.x + threadIdx.x;
  for (int row = 0; row < group.num_rows; ++row) {
    for (int i = first; i < term.rank; i += gridDim.y * blockDim.x) {
      shrunk[row * int64_t{term.rank} + i] = ToFloat(x[row * x_stride + i]);
    }
  }
}

// Each warp makes one element of the rank for all rows of the group: its lanes share the inputs.
template <typename T, int kVector>
__global__ void Shrink(DeltaCall call) {
  const RowGroup group = call.groups[blockIdx.x];
  if (group.is_tiled) {
    return;
  }
  const int lane = threadIdx.x % kWarp;
  const int warp = threadIdx.x / kWarp;
  const T* const x = static_cast<const T*>(call.x) + group.row_begin * call.x_stride;
  for (int t = group.term_begin; t < group.term_end; ++t) {
    const DeltaTerm term = call.terms[t];
    if (term.down == nullptr) {
      Widen(x, call.x_stride, group, term, call.shrunk + term.shrunk_begin);
      continue;
    }
    for (int r = blockIdx.y * kShrinkWarps + warp; r < term.rank; r += gridDim.y * kShrinkWarps) {
      const T* const down = static_cast<const T*>(term.down) + int64_t{r} * call.in_features;
      float sums[kGroupRows] = {};
      for (int i = lane * kVector; i < call.in_features; i += kWarp * kVector) {
        const auto w = *reinterpret_cast<const Pack<T, kVector>*>(down + i);
        for (int row = 0; row < group.num_rows; ++row) {
          const auto input =
              *reinterpret_cast<const Pack<T, kVector>*>(x + row * call.x_stride + i);
          for (int v = 0; v < kVector; ++v) {
            sums[row] += ToFloat(input.values[v]) * ToFloat(w.values[v]);
          }
        }
      }
      for (int row = 0; row < group.num_rows; ++row) {
        const float sum = WarpSum(sums[row]);
        if (lane == 0) {
          call.shrunk[term.shrunk_begin + int64_t{row} * term.rank + r] = sum;
        }
      }
    }
  }
}

// sums += scale * shrunk @ up^T at one column.
template <typename T>
__device__ void AddExpanded(const DeltaTerm& term, const float* shrunk, int column, int num_rows,
                            float (&sums)[kGroupRows]) {
  float products[kGroupRows] = {};
  AddPanelProduct<T>(term.up, term.panel_stride, column, shrunk, term.rank, num_rows, 0, term.rank,
                     products);
  for (int row = 0; row < num_rows; ++row) {
    sums[row] += term.scale * products[row];
  }
}

// Each thread makes one column for all rows of the group.
template <typename T>
__global__ void Expand(DeltaCall call) {
  const RowGroup group = call.groups[blockIdx.x];
  const int column = blockIdx.y * kExpandThreads + threadIdx.x;
  if (column >= group.num_columns) {
    return;
  }
  float sums[kGroupRows] = {};
  float factor = 1.0f, shift = 0.0f;
  for (int t = group.term_begin; t < group.term_end; ++t) {
    const DeltaTerm term = call.terms[t];
    factor += term.gain != nullptr ? term.weight * term.gain[column] : 0.0f;
    shift += term.offset != nullptr ? term.weight * term.offset[column] : 0.0f;
    AddExpanded<T>(term, call.shrunk + term.shrunk_begin, column, group.num_rows, sums);
  }
  T* const y =
      static_cast<T*>(call.y) + group.row_begin * call.y_stride + group.column_begin + column;
  for (int row = 0; row < group.num_rows; ++row) {
    T* const element = y + row * call.y_stride;
    *element = Rounded<T>(ToFloat(*element) * factor + shift + sums[row]);
  }
}

bool IsAligned(const void* address) { return reinterpret_cast<uintptr_t>(address) % 16 == 0; }

template <typename T>
void RunShrink(const DeltaCall& call, void* stream) {
  if (call.num_tiles > 0) {
    LaunchShrinkTiles(call, stream);
  }
  constexpr int kVector = 16 / sizeof(T);
  // Allocations are aligned, so that rows of `down` are when their length is.
  const bool vectors =
      call.in_features % kVector == 0 && call.x_stride % kVector == 0 && IsAligned(call.x);
  const dim3 grid(call.num_groups, (call.max_rank + kShrinkWarps - 1) / kShrinkWarps);
  if (vectors) {
    TENON_LAUNCH((Shrink<T, kVector>), grid, kShrinkWarps * kWarp, stream, call);
  } else {
    TENON_LAUNCH((Shrink<T, 1>), grid, kShrinkWarps * kWarp, stream, call);
  }
}

template <typename T>
void Run(const DeltaCall& call, void* stream) {
  if (call.max_rank > 0) {
    RunShrink<T>(call, stream);
  }
  const dim3 grid(call.num_groups, (call.max_columns + kExpandThreads - 1) / kExpandThreads);
  TENON_LAUNCH(Expand<T>, grid, kExpandThreads, stream, call);
}

const char* ApplyDeltas(const DeltaCall& call, void* stream) {
  if (call.num_groups == 0) {
    return nullptr;
  }
  if (call.type == ElementType::kFloat32) {
    Run<float>(call, stream);
  } else {
    Run<BFloat16>(call, stream);
  }
  return LaunchProblem();
}

}  // namespace
}  // namespace tenon::cuda

extern "C" const tenon::cuda::AdapterKernels* tenon_adapter_kernels_3() {
  static const tenon::cuda::AdapterKernels kernels = {&tenon::cuda::ApplyDeltas,
                                                      &tenon::cuda::ApplyBottlenecks};
  return &kernels;
}
