// KV append, with a block for each token, and paged attention: a block has one query row and head.
// Its warps take tiles of 32 positions in turn, each lane one key; what they have is joined in the
// order of the warps.
#include "server/kernels/cuda/tables.cuh"

namespace tenon::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * kWarp;
constexpr int kDimsPerLane = kMaxAttentionHeadDim / kWarp;

// One token's rotation: pair i of a head turns by row i of the tables.
struct Rotation {
  const float* cos;
  const float* sin;

  template <typename T>
  __device__ void Turn(int pair, T& first, T& second) const {
    const float a = ToFloat(first), b = ToFloat(second);
    first = Rounded<T>(a * cos[pair] - b * sin[pair]);
    second = Rounded<T>(b * cos[pair] + a * sin[pair]);
  }
};

// keys[i * stride] = k[i], rotated, for all heads.
template <typename T>
__device__ void StoreRotated(const Rotation& rotation, const T* k, int num_heads, int half, T* keys,
                             int64_t stride) {
  for (int i = threadIdx.x; i < num_heads * half; i += kThreads) {
    const int at = i / half * 2 * half + i % half;
    T first = k[at], second = k[at + half];
    rotation.Turn(i % half, first, second);
    keys[at * stride] = first;
    keys[(at + half) * stride] = second;
  }
}

template <typename T>
__global__ void AppendToken(AppendKvCall call) {
  const CacheLayout cache = call.cache;
  const int64_t token = blockIdx.x;
  if (call.slots[token] < 0) {
    return;
  }
  const int64_t block = call.slots[token] / cache.block_size;
  const int64_t offset = call.slots[token] % cache.block_size;
  const T* const k = static_cast<const T*>(call.k) + token * call.k_stride;
  const T* const v = static_cast<const T*>(call.v) + token * call.v_stride;
  const int num_dims = cache.kv_heads * cache.head_dim;
  T* const keys = static_cast<T*>(call.keys) + block * num_dims * cache.key_stride + offset;
  T* const values = static_cast<T*>(call.values) +
                    (block * cache.kv_heads * cache.block_size + offset) * cache.value_stride;
  if (call.num_heads > 0) {
    const int half = cache.head_dim / 2;
    const int64_t table = call.positions[token] * half;
    const Rotation rotation = {call.cos + table, call.sin + table};
    T* const q = static_cast<T*>(call.q) + token * call.q_stride;
    StoreRotated(rotation, q, call.num_heads, half, q, 1);
    StoreRotated(rotation, k, cache.kv_heads, half, keys, cache.key_stride);
  }
  for (int i = threadIdx.x; i < num_dims; i += kThreads) {
    if (call.num_heads == 0) {
      keys[i * cache.key_stride] = k[i];
    }
    const int64_t head = i / cache.head_dim;
    values[head * cache.block_size * cache.value_stride + i % cache.head_dim] = v[i];
  }
}

// The softmax of a warp's tiles so far: values with weights exp(score - largest).
struct Running {
  float largest = -INFINITY;
  float mass = 0.0f;
  float sums[kDimsPerLane] = {};  // of dimensions lane, lane + 32, ...
};

// What a token of a row sees, and where its keys lie for one head.
template <typename T>
struct View {
  const int32_t* blocks;
  const T* keys;  // of block 0 and this KV head
  const T* values;
  int64_t key_block, value_block;  // elements from one block to the next
};

template <typename T>
__device__ float Score(const AttentionCall& call, const View<T>& view, const float* query,
                       int position) {
  const CacheLayout& cache = call.cache;
  const int64_t block = view.blocks[position / cache.block_size];
  const T* const key = view.keys + block * view.key_block + position % cache.block_size;
  float score = 0.0f;
  for (int d = 0; d < cache.head_dim; ++d) {
    score += query[d] * ToFloat(key[d * cache.key_stride]);
  }
  score *= call.scale;
  return call.softcap > 0.0f ? call.softcap * tanhf(score / call.softcap) : score;
}

// Adds the positions [tile, tile + 32) within [first, last].
template <typename T>
__device__ void AddTile(const AttentionCall& call, const View<T>& view, const float* query,
                        int tile, int first, int last, Running& running) {
  const CacheLayout& cache = call.cache;
  const int lane = threadIdx.x % kWarp;
  const int position = tile + lane;
  const bool visible = position >= first && position <= last;
  const float score = visible ? Score(call, view, query, position) : -INFINITY;
  const float largest = fmaxf(running.largest, WarpMax(score));
  const float kept = expf(running.largest - largest);  // 0 for the first tile
  const float weight = visible ? expf(score - largest) : 0.0f;
  running.largest = largest;
  running.mass = running.mass * kept + WarpSum(weight);
  for (float& sum : running.sums) {
    sum *= kept;
  }
  const int begin = first > tile ? first - tile : 0;
  const int end = last - tile < kWarp - 1 ? last - tile + 1 : kWarp;
  for (int key = begin; key < end; ++key) {
    const float w = __shfl_sync(kAllLanes, weight, key);
    const int64_t block = view.blocks[(tile + key) / cache.block_size];
    const T* const value = view.values + block * view.value_block +
                           (tile + key) % cache.block_size * cache.value_stride;
    for (int i = 0; i < kDimsPerLane; ++i) {
      const int d = i * kWarp + lane;
      running.sums[i] += d < cache.head_dim ? w * ToFloat(value[d]) : 0.0f;
    }
  }
}

template <typename T>
__device__ void Join(const Running& running, int head_dim, T* out) {
  __shared__ float largest[kWarps], mass[kWarps];
  __shared__ float sums[kWarps][kMaxAttentionHeadDim];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  if (lane == 0) {
    largest[warp] = running.largest;
    mass[warp] = running.mass;
  }
  for (int i = 0; i < kDimsPerLane; ++i) {
    sums[warp][i * kWarp + lane] = running.sums[i];
  }
  __syncthreads();
  float top = largest[0];
  for (int w = 1; w < kWarps; ++w) {
    top = fmaxf(top, largest[w]);
  }
  for (int d = threadIdx.x; d < head_dim; d += kThreads) {
    float total = 0.0f, value = 0.0f;
    for (int w = 0; w < kWarps; ++w) {
      const float factor = expf(largest[w] - top);  // 0 for a warp without tiles
      total += factor * mass[w];
      value += factor * sums[w][d];
    }
    out[d] = Rounded<T>(value / total);
  }
}

template <typename T>
__global__ void AttendToken(AttentionCall call) {
  __shared__ float query[kMaxAttentionHeadDim];
  const int token = blockIdx.x, head = blockIdx.y;
  if (call.row_of_token[token] < 0) {
    return;
  }
  const AttentionRowEntry row = call.rows[call.row_of_token[token]];
  const CacheLayout cache = call.cache;
  const int64_t kv_head = head / (call.num_heads / cache.kv_heads);
  const int64_t within = int64_t{head} * cache.head_dim;
  const T* const q = static_cast<const T*>(call.q) + token * call.q_stride + within;
  for (int d = threadIdx.x; d < cache.head_dim; d += kThreads) {
    query[d] = ToFloat(q[d]);
  }
  __syncthreads();
  View<T> view;
  view.blocks = call.blocks + row.blocks_begin;
  view.key_block = cache.kv_heads * cache.head_dim * cache.key_stride;
  view.value_block = cache.kv_heads * cache.block_size * cache.value_stride;
  view.keys = static_cast<const T*>(call.keys) + kv_head * cache.head_dim * cache.key_stride;
  view.values =
      static_cast<const T*>(call.values) + kv_head * cache.block_size * cache.value_stride;
  const int last = row.first_position + token - row.token_begin;
  const int windowed = call.window > 0 ? last - call.window + 1 : 0;
  const int first = windowed > row.first_key ? windowed : row.first_key;
  Running running;
  for (int tile = (first / kWarp) * kWarp; tile <= last; tile += kWarp) {
    if (tile / kWarp % kWarps == static_cast<int>(threadIdx.x) / kWarp) {
      AddTile(call, view, query, tile, first, last, running);
    }
  }
  T* const out = static_cast<T*>(call.out) + token * call.out_stride + within;
  Join(running, cache.head_dim, out);
}

const char* RunAppendKv(const AppendKvCall& call, void* stream) {
  if (call.num_tokens > 0 && call.type == ElementType::kFloat32) {
    TENON_LAUNCH(AppendToken<float>, call.num_tokens, kThreads, stream, call);
  } else if (call.num_tokens > 0) {
    TENON_LAUNCH(AppendToken<BFloat16>, call.num_tokens, kThreads, stream, call);
  }
  return LaunchProblem();
}

const char* RunAttention(const AttentionCall& call, void* stream) {
  if (call.num_tiles > 0) {
    LaunchTiles(call, stream);
  }
  const dim3 grid(call.num_tokens, call.num_heads);
  if (!call.has_single_tokens) {
    return LaunchProblem();
  }
  if (call.num_tokens > 0 && call.type == ElementType::kFloat32) {
    TENON_LAUNCH(AttendToken<float>, grid, kThreads, stream, call);
  } else if (call.num_tokens > 0) {
    TENON_LAUNCH(AttendToken<BFloat16>, grid, kThreads, stream, call);
  }
  return LaunchProblem();
}

}  // namespace
}  // namespace tenon::cuda

extern "C" const tenon::cuda::ModelKernels* tenon_model_kernels_4() {
  using namespace tenon::cuda;
  static const ModelKernels kernels = {&RunNorm,    &RunAppendKv, &RunAttention, &RunGate,
                                       &RunSoftCap, &RunAdjust,   &RunSample};
  return &kernels;
}
