// Paged attention of several tokens of a row at once, on tensor cores. A block has a tile of
// queries of one row and head, a warp 16 of them; keys come in steps of 32 positions, in ascending
// order (FlashAttention-2, arXiv:2307.08691). Keys are read as they lie, 16 of a dimension side by
// side; values through shared memory, with zeros for positions that hold nothing.
#include "adapters/kernels/cuda/tensor_cores.cuh"
#include "server/kernels/cuda/tables.cuh"

namespace tenon::cuda {
namespace {

constexpr int kEdge = kMatrixEdge;
constexpr int kPositions = 2 * kEdge;  // of a step
constexpr int kHalves = kPositions / kEdge;

// The softmax of a query's steps so far; the two lanes that share a query agree on it.
struct QuerySoftmax {
  float largest = -INFINITY;
  float mass = 0.0f;
};

// What a tile sees of its row.
struct TileView {
  AttentionRowEntry row;
  AttentionTileEntry tile;
  const int32_t* blocks;
  int64_t kv_head;
  int first_query;  // the position of the tile's first token
  int last;         // and of its last

  __device__ TileView(const AttentionCall& call)
      : row(call.rows[call.tiles[blockIdx.x].row]), tile(call.tiles[blockIdx.x]) {
    blocks = call.blocks + row.blocks_begin;
    kv_head = blockIdx.y / (call.num_heads / call.cache.kv_heads);
    first_query = row.first_position + tile.token_begin - row.token_begin;
    last = first_query + tile.num_tokens - 1;
  }

  // The first position that a query at `position` sees.
  __device__ int FirstSeen(const AttentionCall& call, int position) const {
    const int windowed = call.window > 0 ? position - call.window + 1 : 0;
    return windowed > row.first_key ? windowed : row.first_key;
  }

  // Where dimension 0 of the key at `position` is, of 16 that begin at a multiple of 16.
  __device__ const BFloat16* Keys(const AttentionCall& call, int position) const {
    const CacheLayout& cache = call.cache;
    const int64_t block = blocks[position / cache.block_size];
    return static_cast<const BFloat16*>(call.keys) +
           (block * cache.kv_heads + kv_head) * cache.head_dim * cache.key_stride +
           position % cache.block_size;
  }

  __device__ const BFloat16* Values(const AttentionCall& call, int position) const {
    const CacheLayout& cache = call.cache;
    const int64_t block = blocks[position / cache.block_size];
    return static_cast<const BFloat16*>(call.values) +
           ((block * cache.kv_heads + kv_head) * cache.block_size + position % cache.block_size) *
               cache.value_stride;
  }
};

// scores [16, 32] = a warp's queries [16, dims] by the keys of a step. Halves behind the last
// position are left as they are.
__device__ void MakeScores(const AttentionCall& call, const TileView& view, const BFloat16* queries,
                           int stride, int position, float* scores) {
  for (int half = 0; half < kHalves && position + half * kEdge <= view.last; ++half) {
    const BFloat16* const keys = view.Keys(call, position + half * kEdge);
    Accumulator sums;
    sums.Zero();
    for (int d = 0; d < call.cache.head_dim; d += kEdge) {
      sums.AddProduct(LeftMatrix(queries + d, stride),
                      RightMatrix(keys + d * call.cache.key_stride, call.cache.key_stride));
    }
    sums.Store(scores + half * kEdge, kPositions);
  }
}

// One query's scores [16 of 32] become weights; returns what earlier sums are multiplied with.
__device__ float MakeWeights(const AttentionCall& call, int first, int last, int position,
                             const float* scores, BFloat16* weights, QuerySoftmax& softmax) {
  float seen[kEdge];
  float largest = softmax.largest;
  for (int i = 0; i < kEdge; ++i) {
    const bool visible = position + i >= first && position + i <= last;
    const float scaled = visible ? scores[i] * call.scale : -INFINITY;
    seen[i] = visible && call.softcap > 0.0f ? call.softcap * tanhf(scaled / call.softcap) : scaled;
    largest = fmaxf(largest, seen[i]);
  }
  largest = fmaxf(largest, __shfl_xor_sync(kAllLanes, largest, 1));
  float mass = 0.0f;
  for (int i = 0; i < kEdge; ++i) {
    const float weight = seen[i] == -INFINITY ? 0.0f : expf(seen[i] - largest);
    weights[i] = Rounded<BFloat16>(weight);
    mass += weight;
  }
  mass += __shfl_xor_sync(kAllLanes, mass, 1);
  const float kept = softmax.largest == -INFINITY ? 0.0f : expf(softmax.largest - largest);
  softmax.mass = softmax.mass * kept + mass;
  softmax.largest = largest;
  return kept;
}

// kDims is head_dim or more, and a multiple of 16, as is head_dim.
template <int kDims, int kTileWarps>
__global__ void AttendTile(AttentionCall call) {
  constexpr int kThreads = kTileWarps * kWarp;
  alignas(32) __shared__ BFloat16 queries[kTileWarps * kEdge * kDims];
  alignas(32) __shared__ BFloat16 values[kPositions * kDims];
  alignas(32) __shared__ BFloat16 all_weights[kTileWarps][kEdge * kPositions];
  alignas(32) __shared__ float all_scores[kTileWarps][kEdge * kPositions];
  alignas(32) __shared__ float all_sums[kTileWarps][kEdge * kDims];
  const TileView view(call);
  const int dims = call.cache.head_dim;
  const int64_t within = int64_t{blockIdx.y} * dims;
  for (int i = threadIdx.x; i < kTileWarps * kEdge * dims; i += kThreads) {
    const int token = i / dims, d = i % dims;
    const auto* const q = static_cast<const BFloat16*>(call.q) + within;
    queries[token * kDims + d] = token < view.tile.num_tokens
                                     ? q[(view.tile.token_begin + token) * call.q_stride + d]
                                     : BFloat16{0};
  }
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int query = lane / 2, half = lane % 2;  // two lanes a query, each with half of a step
  float* const sums = all_sums[warp];
  float* const scores = all_scores[warp];
  BFloat16* const weights = all_weights[warp];
  for (int i = lane; i < kEdge * kDims; i += kWarp) {
    sums[i] = 0.0f;
  }
  const bool is_used = warp * kEdge < view.tile.num_tokens;
  const int position = view.first_query + warp * kEdge + query;
  const int first = view.FirstSeen(call, position);
  const int last = position < view.last ? position : view.last;  // behind it there is no query
  const int warp_last = view.first_query + warp * kEdge + kEdge - 1;
  QuerySoftmax softmax;
  const int begin = view.FirstSeen(call, view.first_query) / kPositions * kPositions;
  for (int step = begin; step <= view.last; step += kPositions) {
    __syncthreads();  // the values of the step before have been read
    for (int i = threadIdx.x; i < kPositions * dims; i += kThreads) {
      const int at = step + i / dims, d = i % dims;
      values[i / dims * kDims + d] =
          at >= view.row.first_key && at <= view.last ? view.Values(call, at)[d] : BFloat16{0};
    }
    __syncthreads();
    if (!is_used || step > warp_last) {
      continue;  // all lanes of the warp
    }
    MakeScores(call, view, queries + warp * kEdge * kDims, kDims, step, scores);
    __syncwarp();
    const float kept = MakeWeights(call, first, last, step + half * kEdge,
                                   scores + query * kPositions + half * kEdge,
                                   weights + query * kPositions + half * kEdge, softmax);
    for (int d = half; d < dims; d += 2) {
      sums[query * kDims + d] *= kept;
    }
    __syncwarp();
    const LeftMatrix near(weights, kPositions), far(weights + kEdge, kPositions);
    for (int d = 0; d < dims; d += kEdge) {
      Accumulator sum;
      sum.Load(sums + d, kDims);
      sum.AddProduct(near, RightMatrix(values + d, kDims));
      sum.AddProduct(far, RightMatrix(values + kEdge * kDims + d, kDims));
      sum.Store(sums + d, kDims);
    }
    __syncwarp();
  }
  if (warp * kEdge + query < view.tile.num_tokens) {
    const int64_t token = view.tile.token_begin + warp * kEdge + query;
    BFloat16* const out = static_cast<BFloat16*>(call.out) + token * call.out_stride + within;
    for (int d = half; d < dims; d += 2) {
      out[d] = Rounded<BFloat16>(sums[query * kDims + d] / softmax.mass);
    }
  }
}

}  // namespace

void LaunchTiles(const AttentionCall& call, void* stream) {
  const dim3 grid(call.num_tiles, call.num_heads);
  if (call.cache.head_dim <= 64) {
    TENON_LAUNCH((AttendTile<64, 4>), grid, 4 * kWarp, stream, call);
  } else if (call.cache.head_dim <= 128) {
    TENON_LAUNCH((AttendTile<128, 2>), grid, 2 * kWarp, stream, call);
  } else {
    TENON_LAUNCH((AttendTile<256, 1>), grid, kWarp, stream, call);
  }
}

}  // namespace tenon::cuda
