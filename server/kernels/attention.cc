#include "server/kernels/attention.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <vector>

#include "adapters/kernels/parallel.h"
#include "adapters/kernels/tensor_data.h"
#include "server/kernels/vector_kernels.h"

namespace tenon {
namespace {

int64_t Padded(int64_t n) { return (n + kGroupKeys - 1) / kGroupKeys * kGroupKeys; }

// [T, heads, head_dim], each token's part contiguous.
void CheckTokens(const at::Tensor& x, const char* name, const at::Tensor& k_cache) {
  TORCH_CHECK(
      x.dim() == 3 && x.size(2) == k_cache.size(2) && x.scalar_type() == k_cache.scalar_type() &&
          (x.stride(2) == 1 || x.size(2) == 1) && (x.stride(1) == x.size(2) || x.size(1) == 1),
      "attention: ", name, " is ", x.scalar_type(), " ", x.sizes(), " with strides ", x.strides(),
      ", want ", k_cache.scalar_type(), " [T, heads, ", k_cache.size(2),
      "], contiguous within a token");
}

void CheckCache(const at::Tensor& k_cache, const at::Tensor& v_cache) {
  TORCH_CHECK(k_cache.dim() == 4 && v_cache.dim() == 4, "attention: the cache is not of rank 4");
  const KvCacheShape shape{k_cache.size(0), v_cache.size(2), k_cache.size(1), k_cache.size(2)};
  TORCH_CHECK(k_cache.sizes() == at::IntArrayRef(shape.keys()) &&
                  v_cache.sizes() == at::IntArrayRef(shape.values()) && k_cache.is_contiguous() &&
                  v_cache.is_contiguous() && k_cache.scalar_type() == v_cache.scalar_type() &&
                  (k_cache.scalar_type() == at::kFloat || k_cache.scalar_type() == at::kBFloat16),
              "attention: cache shapes ", k_cache.sizes(), " and ", v_cache.sizes(),
              " are not those of one KvCacheShape, or not fp32 or bf16");
}

template <typename T>
void WriteKvOf(const at::Tensor& k, const at::Tensor& v, const int64_t* slots,
               const at::Tensor& k_cache, const at::Tensor& v_cache) {
  const int64_t kv_heads = k.size(1), head_dim = k.size(2);
  const int64_t block_size = v_cache.size(2);
  const int64_t key_stride = k_cache.size(3), value_stride = v_cache.size(3);
  ParallelFor(k.size(0), 2 * kv_heads * head_dim, [&](int64_t t) {
    const int64_t block = slots[t] / block_size, offset = slots[t] % block_size;
    const T* key = Data<T>(k) + t * k.stride(0);
    const T* value = Data<T>(v) + t * v.stride(0);
    T* key_slot = Data<T>(k_cache) + block * k_cache.stride(0) + offset;
    T* value_slot = Data<T>(v_cache) + block * v_cache.stride(0) + offset * value_stride;
    for (int64_t h = 0; h < kv_heads; ++h) {
      for (int64_t d = 0; d < head_dim; ++d) {
        key_slot[(h * head_dim + d) * key_stride] = key[h * head_dim + d];
      }
      std::copy_n(value + h * head_dim, head_dim, value_slot + h * v_cache.stride(1));
    }
  });
}

// A run of query rows of one AttentionRow and KV head: query row i is head i % group of token
// i / group.
struct WorkItem {
  const AttentionRow* row;
  int64_t kv_head;
  int64_t query_begin, query_end;
};

// The first position that a token of the row sees.
int64_t FirstVisible(const AttentionRow& row, int64_t position, int64_t window) {
  return std::max(row.first_key, window > 0 ? position - window + 1 : 0);
}

// The keys that the item's rows look at together.
int64_t NumKeys(const WorkItem& item, int64_t window, int64_t group) {
  const int64_t first = item.row->first_position + item.query_begin / group;
  const int64_t last = item.row->first_position + (item.query_end - 1) / group;
  return last + 1 - FirstVisible(*item.row, first, window);
}

// Everything to do, the most keys first, so that threads end together.
std::vector<WorkItem> CutWork(std::span<const AttentionRow> rows, int64_t kv_heads, int64_t group,
                              int64_t window) {
  std::vector<WorkItem> items;
  for (const AttentionRow& row : rows) {
    const int64_t queries = row.num_tokens * group;
    for (int64_t h = 0; h < kv_heads; ++h) {
      for (int64_t q = 0; q < queries; q += kQueryRows) {
        items.push_back({&row, h, q, std::min(queries, q + kQueryRows)});
      }
    }
  }
  std::stable_sort(items.begin(), items.end(), [=](const WorkItem& a, const WorkItem& b) {
    return NumKeys(a, window, group) > NumKeys(b, window, group);
  });
  return items;
}

template <typename T>
void Attend(const WorkItem& item, const at::Tensor& q, const at::Tensor& k_cache,
            const at::Tensor& v_cache, const AttentionScoring& scoring, const at::Tensor& out) {
  const int64_t group = q.size(1) / k_cache.size(1);
  AttentionTask<T> task;
  task.rows = item.query_end - item.query_begin;
  task.head_dim = q.size(2);
  task.scale = scoring.scale;
  task.softcap = scoring.softcap;
  task.blocks = item.row->blocks.data();
  task.block_size = v_cache.size(2);
  task.keys = Data<T>(k_cache) + item.kv_head * k_cache.stride(1);
  task.key_block_stride = k_cache.stride(0);
  task.key_stride = k_cache.size(3);
  task.values = Data<T>(v_cache) + item.kv_head * v_cache.stride(1);
  task.value_block_stride = v_cache.stride(0);
  task.value_stride = v_cache.size(3);
  for (int64_t i = 0; i < task.rows; ++i) {
    const int64_t token = (item.query_begin + i) / group;
    const int64_t head = item.kv_head * group + (item.query_begin + i) % group;
    const int64_t t = item.row->token_begin + token;
    task.queries[i] = Data<T>(q) + t * q.stride(0) + head * task.head_dim;
    task.outputs[i] = Data<T>(out) + t * out.stride(0) + head * task.head_dim;
    task.positions[i] = item.row->first_position + token;
    task.first_keys[i] = FirstVisible(*item.row, task.positions[i], scoring.window);
  }
  ActiveVectorKernels().of<T>().attend(task);
}

void CheckRow(const AttentionRow& row, int64_t num_tokens, int64_t num_blocks, int64_t block_size) {
  TORCH_CHECK(row.token_begin >= 0 && row.num_tokens >= 0 && row.first_position >= 0 &&
                  row.token_begin + row.num_tokens <= num_tokens,
              "attention: tokens ", row.token_begin, " + ", row.num_tokens, " of ", num_tokens);
  TORCH_CHECK(row.first_key >= 0 && row.first_key <= row.first_position, "attention: first key ",
              row.first_key, " for tokens from position ", row.first_position);
  if (row.num_tokens == 0) {
    return;
  }
  const int64_t context = row.first_position + row.num_tokens;
  const int64_t used = (context + block_size - 1) / block_size;
  TORCH_CHECK(static_cast<int64_t>(row.blocks.size()) >= used, "attention: ", row.blocks.size(),
              " blocks of ", block_size, " for ", context, " positions");
  for (int64_t i = 0; i < used; ++i) {
    TORCH_CHECK(row.blocks[i] >= 0 && row.blocks[i] < num_blocks, "attention: block ",
                row.blocks[i], " of ", num_blocks);
  }
}

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
  CheckCache(k_cache, v_cache);
  CheckTokens(k, "k", k_cache);
  CheckTokens(v, "v", k_cache);
  TORCH_CHECK(k.sizes() == v.sizes() && k.size(1) == k_cache.size(1), "attention: k is ", k.sizes(),
              ", v is ", v.sizes(), ", the cache has ", k_cache.size(1), " KV heads");
  TORCH_CHECK(slots.dim() == 1 && slots.size(0) == k.size(0) && slots.scalar_type() == at::kLong &&
                  slots.is_contiguous(),
              "attention: slots are ", slots.scalar_type(), " ", slots.sizes(), ", want Long [",
              k.size(0), "]");
  const auto* slot = static_cast<const int64_t*>(slots.const_data_ptr());
  const int64_t num_slots = v_cache.size(0) * v_cache.size(2);
  for (int64_t t = 0; t < k.size(0); ++t) {
    TORCH_CHECK(slot[t] >= 0 && slot[t] < num_slots, "attention: slot ", slot[t], " of ",
                num_slots);
  }
  if (k.scalar_type() == at::kFloat) {
    WriteKvOf<float>(k, v, slot, k_cache, v_cache);
  } else {
    WriteKvOf<uint16_t>(k, v, slot, k_cache, v_cache);
  }
}

void PagedAttention(const at::Tensor& q, const at::Tensor& k_cache, const at::Tensor& v_cache,
                    std::span<const AttentionRow> rows, const AttentionScoring& scoring,
                    const at::Tensor& out) {
  CheckCache(k_cache, v_cache);
  CheckTokens(q, "q", k_cache);
  CheckTokens(out, "out", k_cache);
  const int64_t kv_heads = k_cache.size(1), head_dim = k_cache.size(2);
  TORCH_CHECK(out.sizes() == q.sizes() && q.size(1) % kv_heads == 0 && head_dim <= kMaxHeadDim,
              "attention: q is ", q.sizes(), ", out is ", out.sizes(), ", with ", kv_heads,
              " KV heads of at most ", kMaxHeadDim);
  for (const AttentionRow& row : rows) {
    CheckRow(row, q.size(0), k_cache.size(0), v_cache.size(2));
  }
  TORCH_CHECK(scoring.window >= 0 && scoring.softcap >= 0, "attention: window ", scoring.window,
              ", softcap ", scoring.softcap);
  const int64_t group = q.size(1) / kv_heads;
  const std::vector<WorkItem> items = CutWork(rows, kv_heads, group, scoring.window);
  int64_t cost = 0;  // two multiply-adds an element of the keys a query row sees, 16 a nanosecond
  for (const WorkItem& item : items) {
    cost +=
        (item.query_end - item.query_begin) * NumKeys(item, scoring.window, group) * head_dim / 8;
  }
  const auto num_items = static_cast<int64_t>(items.size());
  ParallelFor(num_items, num_items > 0 ? cost / num_items : 0, [&](int64_t i) {
    if (q.scalar_type() == at::kFloat) {
      Attend<float>(items[i], q, k_cache, v_cache, scoring, out);
    } else {
      Attend<uint16_t>(items[i], q, k_cache, v_cache, scoring, out);
    }
  });
}

}  // namespace tenon
