// Segmented bottleneck modules: read the input, down, up, finish, each for all modules of a call in
// one launch. A block has a group of rows, so that each matrix is read once for all of them; widths
// are exact.
#include "adapters/kernels/cuda/adapter_kernels.h"
#include "adapters/kernels/cuda/element.cuh"
#include "adapters/kernels/cuda/panel.cuh"
#include "adapters/kernels/cuda/tables.cuh"

namespace tenon::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr float kNormEpsilon = 1e-5f;  // torch.nn.LayerNorm's default

// One row of a group and one module that applies to it.
template <typename T>
struct ModuleRow {
  const T* residual;
  T* out;
  float* input;
  float* value;

  __device__ ModuleRow(const BottleneckCall& call, const RowGroup& group,
                       const BottleneckEntry& module, int row) {
    const int64_t token = group.row_begin + row;
    const int64_t begin = module.rows_begin + int64_t{row} * call.hidden;
    residual = static_cast<const T*>(call.residual) + token * call.residual_stride;
    out = static_cast<T*>(call.out) + token * call.out_stride;
    input = call.inputs + begin;
    value = call.values + begin;
  }
};

// The layer norm of one row whose elements `element` gives, each thread its own (threadIdx.x,
// + kThreads, ...): put(i, normed). Without a norm, the elements.
template <typename Element, typename Put>
__device__ void NormRow(const AffineNorm& norm, int size, Element element, Put put) {
  float mean = 0.0f, inverse = 1.0f;
  if (norm.weight != nullptr) {
    float sum = 0.0f, squares = 0.0f;
    for (int i = threadIdx.x; i < size; i += kThreads) {
      sum += element(i);
    }
    mean = BlockSum<kThreads>(sum) / static_cast<float>(size);
    for (int i = threadIdx.x; i < size; i += kThreads) {
      const float centred = element(i) - mean;
      squares += centred * centred;
    }
    inverse = 1.0f / sqrtf(BlockSum<kThreads>(squares) / static_cast<float>(size) + kNormEpsilon);
  }
  for (int i = threadIdx.x; i < size; i += kThreads) {
    const float x = element(i);
    put(i, norm.weight == nullptr ? x : (x - mean) * inverse * norm.weight[i] + norm.bias[i]);
  }
}

// What a module reads, in front of norm_before; each thread leaves its own elements in row.input.
template <typename T>
__device__ void ReadInput(const BottleneckEntry& module, int size, const ModuleRow<T>& row) {
  float squares = 0.0f;
  for (int i = threadIdx.x; i < size; i += kThreads) {
    const float out = module.source == BottleneckSource::kResidual ? 0.0f : ToFloat(row.out[i]);
    const float stream =
        module.source == BottleneckSource::kOutput ? 0.0f : ToFloat(row.residual[i]);
    row.input[i] = out + stream;
    squares += row.input[i] * row.input[i];
  }
  if (module.input_norm == nullptr) {
    return;
  }
  const float mean = BlockSum<kThreads>(squares) / static_cast<float>(size);
  const float inverse = 1.0f / sqrtf(mean + module.input_norm_eps);
  for (int i = threadIdx.x; i < size; i += kThreads) {
    row.input[i] *= inverse * module.input_norm[i];
  }
}

// A block makes the inputs of one row: in front of norm_before, and behind it, in `values`.
template <typename T>
__global__ void ReadInputs(BottleneckCall call) {
  const RowGroup group = call.groups[blockIdx.x];
  if (static_cast<int>(blockIdx.y) >= group.num_rows) {
    return;
  }
  for (int t = group.term_begin; t < group.term_end; ++t) {
    const BottleneckEntry module = call.entries[t];
    const ModuleRow<T> row(call, group, module, blockIdx.y);
    ReadInput(module, call.hidden, row);
    NormRow(
        module.norm_before, call.hidden, [&](int i) { return row.input[i]; },
        [&](int i, float normed) { row.value[i] = normed; });
  }
}

__device__ float Activated(BottleneckFunction function, float x) {
  switch (function) {
    case BottleneckFunction::kIdentity:
      return x;
    case BottleneckFunction::kRelu:
      return x > 0.0f ? x : 0.0f;
    case BottleneckFunction::kLeakyRelu:
      return x > 0.0f ? x : 0.01f * x;
    case BottleneckFunction::kGelu:
      return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f));
    case BottleneckFunction::kGeluTanh:  // arXiv:1606.08415, the approximation with tanh
      return 0.5f * x * (1.0f + tanhf(0.79788456080286536f * (x + 0.044715f * x * x * x)));
    case BottleneckFunction::kSilu:
      return x / (1.0f + expf(-x));
    case BottleneckFunction::kTanh:
      return tanhf(x);
  }
  return x;
}

// A block makes 32 columns of the inner width at a time for all rows of a group: its warps share
// the inputs, and their parts are added in the order of the warps.
template <typename T>
__global__ void Down(BottleneckCall call) {
  __shared__ float parts[kWarps][kGroupRows][kWarp];
  const RowGroup group = call.groups[blockIdx.x];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int share = (call.hidden + kWarps - 1) / kWarps;
  const int begin = warp * share < call.hidden ? warp * share : call.hidden;
  const int end = begin + share < call.hidden ? begin + share : call.hidden;
  for (int t = group.term_begin; t < group.term_end; ++t) {
    const BottleneckEntry module = call.entries[t];
    for (int panel = blockIdx.y; panel * kPanelColumns < module.width; panel += gridDim.y) {
      const int column = panel * kPanelColumns + lane;
      float sums[kGroupRows] = {};
      AddPanelProduct<T>(module.down, module.down_stride, column, call.values + module.rows_begin,
                         call.hidden, group.num_rows, begin, end, sums);
      for (int row = 0; row < group.num_rows; ++row) {
        parts[warp][row][lane] = sums[row];
      }
      __syncthreads();
      for (int row = warp; row < group.num_rows && column < module.width; row += kWarps) {
        float sum = module.down_bias[column];
        for (int w = 0; w < kWarps; ++w) {
          sum += parts[w][row][lane];
        }
        call.inner[module.inner_begin + int64_t{row} * module.width + column] =
            Activated(module.function, sum);
      }
      __syncthreads();  // before the next panel writes
    }
  }
}

// Each thread makes one column of `values` for all rows of a group.
template <typename T>
__global__ void Up(BottleneckCall call) {
  const RowGroup group = call.groups[blockIdx.x];
  const int column = blockIdx.y * kThreads + threadIdx.x;
  if (column >= call.hidden) {
    return;
  }
  for (int t = group.term_begin; t < group.term_end; ++t) {
    const BottleneckEntry module = call.entries[t];
    float sums[kGroupRows] = {};
    AddPanelProduct<T>(module.up, module.up_stride, column, call.inner + module.inner_begin,
                       module.width, group.num_rows, 0, module.width, sums);
    for (int row = 0; row < group.num_rows; ++row) {
      call.values[module.rows_begin + int64_t{row} * call.hidden + column] =
          module.scale[column] * (sums[row] + module.up_bias[column]);
    }
  }
}

// r of one element.
template <typename T>
__device__ float Skipped(const BottleneckEntry& module, const ModuleRow<T>& row, int i) {
  switch (module.skip) {
    case BottleneckSkip::kOutput:
      return ToFloat(row.out[i]);
    case BottleneckSkip::kInput:
      return row.input[i];
    default:
      return ToFloat(row.out[i]) + ToFloat(row.residual[i]);
  }
}

// sums[i] += weight * update, each thread its own elements; sums may be row.input.
template <typename T>
__device__ void AddUpdate(const BottleneckEntry& module, int size, const ModuleRow<T>& row,
                          bool is_first, float* sums) {
  const bool before = module.adds_residual_before_norm;
  NormRow(
      module.norm_after, size,
      [&](int i) { return row.value[i] + (before ? Skipped(module, row, i) : 0.0f); },
      [&](int i, float normed) {
        const float result = normed + (before ? 0.0f : Skipped(module, row, i));
        const float dropped = module.drops_stream ? ToFloat(row.residual[i]) : 0.0f;
        const float update = module.weight * (result - ToFloat(row.out[i]) - dropped);
        sums[i] = is_first ? update : sums[i] + update;
      });
}

// A block finishes one row: its modules' updates are summed up in the first one's input.
template <typename T>
__global__ void Finish(BottleneckCall call) {
  const RowGroup group = call.groups[blockIdx.x];
  if (static_cast<int>(blockIdx.y) >= group.num_rows) {
    return;
  }
  const ModuleRow<T> first(call, group, call.entries[group.term_begin], blockIdx.y);
  for (int t = group.term_begin; t < group.term_end; ++t) {
    const BottleneckEntry module = call.entries[t];
    const ModuleRow<T> row(call, group, module, blockIdx.y);
    AddUpdate(module, call.hidden, row, t == group.term_begin, first.input);
  }
  for (int i = threadIdx.x; i < call.hidden; i += kThreads) {
    first.out[i] = Rounded<T>(ToFloat(first.out[i]) + first.input[i]);
  }
}

template <typename T>
void Run(const BottleneckCall& call, void* stream) {
  const dim3 rows(call.num_groups, call.max_rows);
  const dim3 panels(call.num_groups, (call.max_width + kPanelColumns - 1) / kPanelColumns);
  const dim3 columns(call.num_groups, (call.hidden + kThreads - 1) / kThreads);
  TENON_LAUNCH(ReadInputs<T>, rows, kThreads, stream, call);
  TENON_LAUNCH(Down<T>, panels, kThreads, stream, call);
  TENON_LAUNCH(Up<T>, columns, kThreads, stream, call);
  TENON_LAUNCH(Finish<T>, rows, kThreads, stream, call);
}

}  // namespace

const char* ApplyBottlenecks(const BottleneckCall& call, void* stream) {
  if (call.num_groups > 0 && call.type == ElementType::kFloat32) {
    Run<float>(call, stream);
  } else if (call.num_groups > 0) {
    Run<BFloat16>(call, stream);
  }
  return LaunchProblem();
}

}  // namespace tenon::cuda
