// The first half of low-rank deltas for long segments, on tensor cores. A block has up to 64 rows
// of a segment and 16 elements of the rank, a warp 16 of the rows; `down` comes through shared
// memory, with zeros where the rank ends.
#include "adapters/kernels/cuda/element.cuh"
#include "adapters/kernels/cuda/tables.cuh"
#include "adapters/kernels/cuda/tensor_cores.cuh"

namespace tenon::cuda {
namespace {

constexpr int kEdge = kMatrixEdge;
constexpr int kTileWarps = kTileGroups * kGroupRows / kEdge;
constexpr int kThreads = kTileWarps * kWarp;
constexpr int kInputs = 64;  // of a step
static_assert(2 * kGroupRows == kEdge);

// down[first_rank + i, begin + j] for a step's inputs, i below 16.
__device__ void LoadDown(const DeltaCall& call, const DeltaTerm& term, int first_rank, int begin,
                         BFloat16* step) {
  const auto* const down = static_cast<const BFloat16*>(term.down);
  for (int i = threadIdx.x; i < kEdge * kInputs; i += kThreads) {
    const int rank = first_rank + i / kInputs, input = begin + i % kInputs;
    step[i] = rank < term.rank && input < call.in_features
                  ? down[int64_t{rank} * call.in_features + input]
                  : BFloat16{0};
  }
}

// Writes a warp's sums [16 rows, 16 of the rank] to where the groups' terms have them.
__device__ void StoreShrunk(const DeltaCall& call, const RowGroup* groups, int term, int first_rank,
                            const float* sums) {
  for (int i = threadIdx.x % kWarp; i < kEdge * kEdge; i += kWarp) {
    const int row = i / kEdge, rank = first_rank + i % kEdge;
    const DeltaTerm& target = call.terms[groups[row / kGroupRows].term_begin + term];
    if (rank < target.rank) {
      call.shrunk[target.shrunk_begin + int64_t{row % kGroupRows} * target.rank + rank] = sums[i];
    }
  }
}

__global__ void ShrinkTile(DeltaCall call) {
  alignas(32) __shared__ BFloat16 down[kEdge * kInputs];
  alignas(32) __shared__ float all_sums[kTileWarps][kEdge * kEdge];
  const RowTile tile = call.tiles[blockIdx.x];
  const RowGroup* const groups = call.groups + tile.group_begin;
  const int warp = threadIdx.x / kWarp, first_rank = blockIdx.y * kEdge;
  const bool is_used = 2 * warp < tile.num_groups;
  const auto* const x =
      static_cast<const BFloat16*>(call.x) + (groups[0].row_begin + warp * kEdge) * call.x_stride;
  for (int t = 0; t < groups[0].term_end - groups[0].term_begin; ++t) {
    const DeltaTerm term = call.terms[groups[0].term_begin + t];
    if (first_rank >= term.rank) {
      continue;  // all threads of the block
    }
    Accumulator sums;
    sums.Zero();
    for (int begin = 0; begin < call.in_features; begin += kInputs) {
      __syncthreads();  // the step before has been read
      LoadDown(call, term, first_rank, begin, down);
      __syncthreads();
      const int end = call.in_features - begin < kInputs ? call.in_features - begin : kInputs;
      for (int i = 0; is_used && i < end; i += kEdge) {
        sums.AddProduct(LeftMatrix(x + begin + i, static_cast<unsigned>(call.x_stride)),
                        RightTransposed(down + i, kInputs));
      }
    }
    if (is_used) {
      sums.Store(all_sums[warp], kEdge);
      __syncwarp();
      StoreShrunk(call, groups + 2 * warp, t, first_rank, all_sums[warp]);
      __syncwarp();  // before the next term's sums
    }
  }
}

}  // namespace

void LaunchShrinkTiles(const DeltaCall& call, void* stream) {
  const dim3 grid(call.num_tiles, (call.max_rank + kEdge - 1) / kEdge);
  TENON_LAUNCH(ShrinkTile, grid, kThreads, stream, call);
}

}  // namespace tenon::cuda
