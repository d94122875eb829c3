// Paged attention: the keys and values of many sequences in blocks, and the attention over them.
#ifndef TENON_SERVER_KERNELS_ATTENTION_H_
#define TENON_SERVER_KERNELS_ATTENTION_H_

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <span>

namespace tenon {

/// The shapes of one layer's KV cache. The inner layout belongs to these kernels: read and write it
/// through them only (whole blocks, [i] of dimension 0, may be copied as they are).
///   keys    [num_blocks, kv_heads, head_dim, padded(block_size)]    a block's keys side by side
///   values  [num_blocks, kv_heads, block_size, padded(head_dim)]
/// padded() rounds up to 16, a vector of fp32; what lies in the padding is never looked at.
/// Allocate both with zeros: at::zeros(shape.keys(), dtype). Nothing needs clearing when a block is
/// used again.
struct KvCacheShape {
  int64_t num_blocks = 0;
  int64_t block_size = 0;  ///< tokens per block; a multiple of 16 wastes nothing
  int64_t kv_heads = 0;
  int64_t head_dim = 0;

  std::array<int64_t, 4> keys() const;
  std::array<int64_t, 4> values() const;
  /// Elements of keys and values of one block: times the dtype's size, the cost of a block.
  int64_t elements_per_block() const;
};

/// A run of tokens of one sequence, in one step.
struct AttentionRow {
  int64_t token_begin = 0;     ///< where they begin in q and out
  int64_t num_tokens = 0;      ///< they have positions first_position ... + num_tokens - 1
  int64_t first_position = 0;  ///< position in the sequence; virtual tokens in front count
  /// The sequence's blocks in order: position p is in blocks[p / block_size]. Covers the last
  /// token.
  std::span<const int32_t> blocks;
  /// Positions before this one hold nothing and are not looked at, as where the virtual tokens of a
  /// shared context do not fill its first block. At most first_position.
  int64_t first_key = 0;
};

/// How a layer scores keys.
struct AttentionScoring {
  float scale = 1.0f;
  /// A token at position p sees the keys in (p - window, p]; 0 for all up to p.
  int64_t window = 0;
  /// c > 0 bounds the scaled scores: c * tanh(score / c) (Gemma 2, arXiv:2408.00118); 0 for none.
  float softcap = 0.0f;
};

/// Stores the keys and values of a step.
/// k, v     [T, kv_heads, head_dim]  the cache's dtype; any row stride, contiguous within a row.
/// slots    [T] int64: block * block_size + offset. Each at most once.
/// k_cache, v_cache  shaped by KvCacheShape, updated in place.
/// Throws c10::Error on a shape or dtype that does not fit.
void WriteKv(const at::Tensor& k, const at::Tensor& v, const at::Tensor& slots,
             const at::Tensor& k_cache, const at::Tensor& v_cache);

/// Causal attention of each token over its own sequence (PagedAttention, arXiv:2309.06180; online
/// softmax, arXiv:2112.05682; grouped query heads, arXiv:2305.13245):
///   out[t, h] = sum_{j <= p(t)} softmax_j(scale * q[t, h] . k[j, h / group]) v[j, h / group]
/// where j begins at the row's first_key or with the window, and the scores may be capped.
/// q        [T, heads, head_dim] fp32/bf16; any row stride, contiguous within a row; heads a
///          multiple of kv_heads.
/// k_cache, v_cache  the same dtype, shaped by KvCacheShape; the keys of this step are in already.
/// rows     disjoint runs of tokens; tokens that no row covers keep their bits in out.
/// out      [T, heads, head_dim] the same dtype, contiguous within a row; must not alias q.
/// Accumulates in fp32 and rounds once. Keys are summed in tiles cut by position, so a token's
/// result has the same bits in any batch and any chunking of its prompt. Tiles that no token of a
/// task sees are skipped.
/// Throws c10::Error on a shape or dtype that does not fit.
void PagedAttention(const at::Tensor& q, const at::Tensor& k_cache, const at::Tensor& v_cache,
                    std::span<const AttentionRow> rows, const AttentionScoring& scoring,
                    const at::Tensor& out);

/// The same in plain ATen operations: they define what is correct and run on any device.
void WriteKvReference(const at::Tensor& k, const at::Tensor& v, const at::Tensor& slots,
                      const at::Tensor& k_cache, const at::Tensor& v_cache);
void PagedAttentionReference(const at::Tensor& q, const at::Tensor& k_cache,
                             const at::Tensor& v_cache, std::span<const AttentionRow> rows,
                             const AttentionScoring& scoring, const at::Tensor& out);

}  // namespace tenon

#endif  // TENON_SERVER_KERNELS_ATTENTION_H_
