#include "server/kernels/attention.h"

namespace tenon {
namespace {

// fp32 lanes of the widest vector the kernels use.
constexpr int64_t kLanes = 16;

int64_t Padded(int64_t n) { return (n + kLanes - 1) / kLanes * kLanes; }

}  // namespace

std::array<int64_t, 4> KvCacheShape::keys() const {
  return {num_blocks, kv_heads, head_dim, Padded(block_size)};
}

std::array<int64_t, 4> KvCacheShape::values() const {
  return {num_blocks, kv_heads, block_size, Padded(head_dim)};
}

int64_t KvCacheShape::elements_per_block() const {
  return kv_heads * (head_dim * Padded(block_size) + block_size * Padded(head_dim));
}

void WriteKv(const at::Tensor& k, const at::Tensor& v, const at::Tensor& slots,
             const at::Tensor& k_cache, const at::Tensor& v_cache) {
  WriteKvReference(k, v, slots, k_cache, v_cache);
}

void PagedAttention(const at::Tensor& q, const at::Tensor& k_cache, const at::Tensor& v_cache,
                    std::span<const AttentionRow> rows, float scale, const at::Tensor& out) {
  PagedAttentionReference(q, k_cache, v_cache, rows, scale, out);
}

}  // namespace tenon
