// The operations of KernelKind::kCuda: Tenon's kernels on tensors of a GPU.
#ifndef TENON_SERVER_KERNELS_CUDA_OPS_H_
#define TENON_SERVER_KERNELS_CUDA_OPS_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "adapters/kernels/device_tables.h"
#include "server/kernels/activation.h"
#include "server/kernels/attention.h"
#include "server/kernels/cuda/model_kernels.h"
#include "server/kernels/norm.h"
#include "server/kernels/rope.h"

namespace tenon {

/// Where the rows of a step lie, on the device: made once a step, read by every layer.
struct AttentionTable {
  DeviceTable<cuda::AttentionRowEntry> rows;
  DeviceTable<int32_t> row_of_token;  ///< [num_tokens]; -1 for one in no row, or in a tile
  DeviceTable<cuda::AttentionTileEntry> tiles;
  DeviceTable<int32_t> blocks;  ///< those of all rows one behind another
  bool has_single_tokens = false;
  const DeviceTables* tables = nullptr;

  AttentionTable() = default;  ///< of no use but to be assigned to
  /// Adds the four to `tables`, which are borrowed; `blocks` is the last. There is room for a row
  /// a token. Rows with many tokens are cut into tiles of at most `tile_tokens`
  /// (AttentionTileTokens; 0: no tiles). Throws c10::Error on a row that does not lie within
  /// num_tokens or has too few blocks of block_size.
  AttentionTable(std::span<const AttentionRow> rows, int64_t num_tokens, int64_t block_size,
                 int64_t tile_tokens, DeviceTables& tables);
};

/// How many tokens of a row the kernels compute together, on tensor cores; 0 where they do not.
int64_t AttentionTileTokens(at::ScalarType dtype, int64_t head_dim, int64_t block_size);

// As the functions without Cuda in their names: shapes, dtypes, roundings and errors. Slots,
// positions and blocks are not looked at, since they lie on the device. A row's result has the same
// bits in any batch, but that attention in a tile rounds otherwise. OpenKernelLibrary comes first;
// runs on LibTorch's current stream.
void NormalizeCuda(const at::Tensor& x, const Norm& norm, const at::Tensor& y);
void AddNormalizeCuda(const at::Tensor& x, const at::Tensor& residual, const Norm& norm,
                      const at::Tensor& y);
void NormalizeHeadsCuda(const at::Tensor& x, const Norm& norm);
void GateCuda(const at::Tensor& gate_up, Activation activation, const at::Tensor& y);
void ActivateCuda(const at::Tensor& x, Activation activation, const at::Tensor& y);
/// x fp32, contiguous.
void SoftCapCuda(const at::Tensor& x, float cap);
/// ApplyRope of q and k, then WriteKv, in one launch; k itself keeps its values. No rope: null, and
/// q is not looked at.
void AppendKvCuda(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                  const RopeRows* rope, const at::Tensor& slots, const at::Tensor& k_cache,
                  const at::Tensor& v_cache);
void PagedAttentionCuda(const at::Tensor& q, const at::Tensor& k_cache, const at::Tensor& v_cache,
                        const AttentionTable& table, const AttentionScoring& scoring,
                        const at::Tensor& out);

/// Adjusts logits [R, vocab] fp32, contiguous, in place; entries are of different logits. Throws
/// c10::Error on one that is not there.
void AdjustLogitsCuda(const at::Tensor& logits, std::span<const cuda::LogitAdjustment> adjustments);

/// Chooses a token for each row of logits [R, vocab] fp32, contiguous; rows are `sampling`'s. Waits
/// for the results. Rows that fail are for Sampler to name (cuda::SampledStatus).
std::vector<cuda::SampledRow> SampleCuda(const at::Tensor& logits,
                                         std::span<const cuda::RowSampling> sampling);

}  // namespace tenon

#endif  // TENON_SERVER_KERNELS_CUDA_OPS_H_
