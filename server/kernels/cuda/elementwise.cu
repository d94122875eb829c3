// Norms, gates and soft caps: one block a row.
#include "server/kernels/cuda/tables.cuh"

namespace tenon::cuda {
namespace {

constexpr int kThreads = 256;

template <typename T>
__device__ T Normed(const NormCall& call, float value, float mean, float inverse, int i) {
  const float weight = call.weight[i];
  switch (call.formula) {
    case NormFormula::kRms:
      return Rounded<T>(weight * ToFloat(Rounded<T>(value * inverse)));
    case NormFormula::kRmsFromOne:
      return Rounded<T>(weight * (value * inverse));
    default:
      return Rounded<T>(weight * ((value - mean) * inverse) + call.bias[i]);
  }
}

template <typename T>
__global__ void NormRow(NormCall call) {
  const int64_t token = blockIdx.x;
  const int64_t within = int64_t{blockIdx.y} * call.size;
  const T* const x = static_cast<const T*>(call.x) + token * call.x_stride + within;
  T* const y = static_cast<T*>(call.y) + token * call.y_stride + within;
  const T* source = x;
  if (call.residual != nullptr) {
    T* const residual = static_cast<T*>(call.residual) + token * call.residual_stride + within;
    for (int i = threadIdx.x; i < call.size; i += kThreads) {  // each thread reads its own later
      residual[i] = Rounded<T>(ToFloat(residual[i]) + ToFloat(x[i]));
    }
    source = residual;
  }
  float mean = 0.0f;
  if (call.formula == NormFormula::kLayer) {
    float sum = 0.0f;
    for (int i = threadIdx.x; i < call.size; i += kThreads) {
      sum += ToFloat(source[i]);
    }
    mean = BlockSum<kThreads>(sum) / static_cast<float>(call.size);
  }
  float squares = 0.0f;
  for (int i = threadIdx.x; i < call.size; i += kThreads) {
    const float centred = ToFloat(source[i]) - mean;
    squares += centred * centred;
  }
  const float variance = BlockSum<kThreads>(squares) / static_cast<float>(call.size);
  const float inverse = 1.0f / sqrtf(variance + call.eps);
  for (int i = threadIdx.x; i < call.size; i += kThreads) {
    y[i] = Normed<T>(call, ToFloat(source[i]), mean, inverse, i);
  }
}

__device__ float Activated(GateFunction function, float x) {
  if (function == GateFunction::kSilu) {
    return x / (1.0f + expf(-x));
  }
  const float inner = 0.79788456080286536f * (x + 0.044715f * x * x * x);
  // 0.5 (1 + tanh(u)) = 1 / (1 + exp(-2u)), which does not cancel for negative u.
  return x / (1.0f + expf(-2.0f * inner));
}

template <typename T>
__global__ void GateRow(GateCall call) {
  const int i = blockIdx.y * kThreads + threadIdx.x;
  if (i >= call.size) {
    return;
  }
  const T* const x = static_cast<const T*>(call.x) + int64_t{blockIdx.x} * call.x_stride;
  const float activated = Activated(call.function, ToFloat(x[i]));
  T* const y = static_cast<T*>(call.y) + int64_t{blockIdx.x} * call.y_stride;
  y[i] = Rounded<T>(call.gated ? activated * ToFloat(x[call.size + i]) : activated);
}

__global__ void SoftCapElement(SoftCapCall call) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < call.count) {
    call.x[i] = call.cap * tanhf(call.x[i] / call.cap);
  }
}

}  // namespace

const char* RunNorm(const NormCall& call, void* stream) {
  const dim3 grid(call.num_tokens, call.num_heads);
  if (call.num_tokens > 0 && call.type == ElementType::kFloat32) {
    TENON_LAUNCH(NormRow<float>, grid, kThreads, stream, call);
  } else if (call.num_tokens > 0) {
    TENON_LAUNCH(NormRow<BFloat16>, grid, kThreads, stream, call);
  }
  return LaunchProblem();
}

const char* RunGate(const GateCall& call, void* stream) {
  const dim3 grid(call.num_tokens, (call.size + kThreads - 1) / kThreads);
  if (call.num_tokens > 0 && call.type == ElementType::kFloat32) {
    TENON_LAUNCH(GateRow<float>, grid, kThreads, stream, call);
  } else if (call.num_tokens > 0) {
    TENON_LAUNCH(GateRow<BFloat16>, grid, kThreads, stream, call);
  }
  return LaunchProblem();
}

const char* RunSoftCap(const SoftCapCall& call, void* stream) {
  if (call.count > 0) {
    const int64_t blocks = (call.count + kThreads - 1) / kThreads;
    TENON_LAUNCH(SoftCapElement, static_cast<unsigned>(blocks), kThreads, stream, call);
  }
  return LaunchProblem();
}

}  // namespace tenon::cuda
