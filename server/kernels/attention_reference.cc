#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/softmax.h>
#include <c10/util/Exception.h>

#include <limits>

#include "server/kernels/attention.h"

namespace tenon {

void WriteKvReference(const at::Tensor& k, const at::Tensor& v, const at::Tensor& slots,
                      const at::Tensor& k_cache, const at::Tensor& v_cache) {
  const int64_t block_size = v_cache.size(2);
  const int64_t head_dim = k_cache.size(2);
  const at::Tensor blocks = slots.div(block_size, "floor");
  const at::Tensor offsets = slots.remainder(block_size);
  // Tokens become the first dimension: [num_blocks, block_size, kv_heads, head_dim].
  k_cache.permute({0, 3, 1, 2}).index_put_({blocks, offsets}, k);
  v_cache.permute({0, 2, 1, 3}).narrow(3, 0, head_dim).index_put_({blocks, offsets}, v);
}

void PagedAttentionReference(const at::Tensor& q, const at::Tensor& k_cache,
                             const at::Tensor& v_cache, std::span<const AttentionRow> rows,
                             const AttentionScoring& scoring, const at::Tensor& out) {
  const int64_t block_size = v_cache.size(2);
  const int64_t kv_heads = k_cache.size(1);
  const int64_t head_dim = k_cache.size(2);
  const int64_t group = q.size(1) / kv_heads;
  for (const AttentionRow& row : rows) {
    if (row.num_tokens == 0) {
      continue;
    }
    const int64_t context = row.first_position + row.num_tokens;
    const int64_t num_blocks = (context + block_size - 1) / block_size;
    TORCH_CHECK(static_cast<int64_t>(row.blocks.size()) >= num_blocks,
                "attention: ", row.blocks.size(), " blocks for ", context, " positions");
    const at::Tensor blocks =
        at::from_blob(const_cast<int32_t*>(row.blocks.data()), {num_blocks}, at::kInt)
            .to(at::kLong)
            .to(q.device());
    // [num_blocks, kv_heads, ...] -> [kv_heads, 1, head_dim, context] and [.., context, head_dim].
    const at::Tensor keys = k_cache.index_select(0, blocks)
                                .narrow(3, 0, block_size)
                                .permute({1, 2, 0, 3})
                                .reshape({kv_heads, 1, head_dim, num_blocks * block_size})
                                .narrow(3, 0, context)
                                .to(at::kDouble);
    const at::Tensor values = v_cache.index_select(0, blocks)
                                  .narrow(3, 0, head_dim)
                                  .permute({1, 0, 2, 3})
                                  .reshape({kv_heads, 1, num_blocks * block_size, head_dim})
                                  .narrow(2, 0, context)
                                  .to(at::kDouble);
    // [T, kv_heads * group, head_dim] -> [kv_heads, group, T, head_dim].
    const at::Tensor queries = q.narrow(0, row.token_begin, row.num_tokens)
                                   .reshape({row.num_tokens, kv_heads, group, head_dim})
                                   .permute({1, 2, 0, 3})
                                   .to(at::kDouble);
    const at::Tensor positions =
        at::arange(context, at::TensorOptions().dtype(at::kLong).device(q.device()));
    const at::Tensor own = positions.narrow(0, row.first_position, row.num_tokens).unsqueeze(1);
    at::Tensor hidden = (positions.unsqueeze(0) > own) | (positions.unsqueeze(0) < row.first_key);
    if (scoring.window > 0) {
      hidden = hidden | (positions.unsqueeze(0) <= own - scoring.window);
    }
    at::Tensor scores = at::matmul(queries, keys).mul(scoring.scale);
    if (scoring.softcap > 0) {
      scores = scores.div(scoring.softcap).tanh().mul(scoring.softcap);
    }
    scores = scores.masked_fill(hidden, -std::numeric_limits<double>::infinity());
    // What no token may see may be NaN, and 0 * NaN is not 0.
    const at::Tensor unused = (positions < row.first_key).unsqueeze(1);
    const at::Tensor result = at::matmul(at::softmax(scores, -1), values.masked_fill(unused, 0.0));
    out.narrow(0, row.token_begin, row.num_tokens)
        .copy_(result.permute({2, 0, 1, 3}).reshape({row.num_tokens, q.size(1), head_dim}));
  }
}

}  // namespace tenon
