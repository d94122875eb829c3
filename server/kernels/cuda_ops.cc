#include "server/kernels/cuda_ops.h"

#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cstring>
#include <vector>

#include "adapters/kernels/kernel_call.h"
#include "adapters/kernels/tensor_data.h"

namespace tenon {
namespace {

const cuda::ModelKernels& Kernels() {
  static const auto& kernels = KernelTable<cuda::ModelKernels>(TENON_MODEL_KERNELS_SYMBOL);
  return kernels;
}

template <typename Call>
void Run(const char* (*kernel)(const Call&, void*), const Call& call, const at::Tensor& on) {
  RunKernel(kernel, call, on.device(), "CUDA kernel");
}

cuda::ElementType TypeOf(const at::Tensor& tensor, const char* name) {
  return ElementTypeOf(tensor.scalar_type(), name);
}

// [T, columns...] of `like`'s dtype, contiguous within a token.
void CheckTokens(const at::Tensor& x, const char* name, int64_t tokens, const at::Tensor& like) {
  TORCH_CHECK(x.dim() >= 2 && x.size(0) == tokens && x.scalar_type() == like.scalar_type() &&
                  x.device() == like.device() && (tokens == 0 || x.select(0, 0).is_contiguous()),
              name, " is ", x.scalar_type(), " ", x.sizes(), " with strides ", x.strides(), " on ",
              x.device(), ", want ", tokens, " tokens of ", like.scalar_type(), " on ",
              like.device(), ", contiguous within a token");
}

void CheckIndex(const at::Tensor& index, const char* name, int64_t tokens, at::ScalarType dtype) {
  TORCH_CHECK(index.dim() == 1 && index.size(0) == tokens && index.scalar_type() == dtype &&
                  index.is_contiguous(),
              name, " are ", index.scalar_type(), " ", index.sizes(), ", want ", dtype, " [",
              tokens, "]");
}

const float* Vector(const at::Tensor& tensor, int64_t size) {
  if (!tensor.defined()) {
    return nullptr;
  }
  TORCH_CHECK(tensor.dim() == 1 && tensor.size(0) == size && tensor.scalar_type() == at::kFloat &&
                  tensor.is_contiguous(),
              "norm: a weight is ", tensor.scalar_type(), " ", tensor.sizes(), ", want fp32 [",
              size, "]");
  return tensor.const_data_ptr<float>();
}

cuda::NormCall NormCallOf(const at::Tensor& x, int64_t size, const Norm& norm,
                          const at::Tensor& y) {
  CheckTokens(x, "norm: x", x.size(0), x);
  CheckTokens(y, "norm: y", x.size(0), x);
  TORCH_CHECK(norm.kind != NormKind::kLayer || norm.bias.defined(), "norm: no bias");
  cuda::NormCall call{};
  call.type = TypeOf(x, "norm");
  call.formula = static_cast<cuda::NormFormula>(norm.kind);
  call.eps = norm.eps;
  call.size = static_cast<int32_t>(size);
  call.num_tokens = static_cast<int32_t>(x.size(0));
  call.num_heads = 1;
  call.x = x.const_data_ptr();
  call.x_stride = x.stride(0);
  call.weight = Vector(norm.weight, size);
  call.bias = Vector(norm.bias, size);
  call.y = y.mutable_data_ptr();
  call.y_stride = y.stride(0);
  return call;
}

cuda::CacheLayout LayoutOf(const at::Tensor& k_cache, const at::Tensor& v_cache) {
  TORCH_CHECK(k_cache.dim() == 4 && v_cache.dim() == 4, "attention: the cache is not of rank 4");
  const KvCacheShape shape{k_cache.size(0), v_cache.size(2), k_cache.size(1), k_cache.size(2)};
  TORCH_CHECK(k_cache.sizes() == at::IntArrayRef(shape.keys()) &&
                  v_cache.sizes() == at::IntArrayRef(shape.values()) && k_cache.is_contiguous() &&
                  v_cache.is_contiguous() && k_cache.scalar_type() == v_cache.scalar_type(),
              "attention: cache shapes ", k_cache.sizes(), " and ", v_cache.sizes(),
              " are not those of one KvCacheShape");
  cuda::CacheLayout layout{};
  layout.block_size = static_cast<int32_t>(shape.block_size);
  layout.kv_heads = static_cast<int32_t>(shape.kv_heads);
  layout.head_dim = static_cast<int32_t>(shape.head_dim);
  layout.key_stride = k_cache.size(3);
  layout.value_stride = v_cache.size(3);
  return layout;
}

// What an append rotates q [T, heads, head_dim] and its keys with.
void AddRope(const at::Tensor& q, const RopeRows& rope, cuda::AppendKvCall& call) {
  TORCH_CHECK(q.dim() == 3 && q.size(0) == call.num_tokens && q.size(2) == call.cache.head_dim &&
                  (call.num_tokens == 0 || q.select(0, 0).is_contiguous()) &&
                  TypeOf(q, "rope: q") == call.type,
              "rope: q is ", q.scalar_type(), " ", q.sizes(), " with strides ", q.strides(),
              " for ", call.num_tokens, " keys of ", call.cache.head_dim);
  CheckIndex(rope.positions, "rope: positions", call.num_tokens, at::kLong);
  TORCH_CHECK(rope.cos.sizes() == rope.sin.sizes() && rope.cos.dim() == 2 &&
                  2 * rope.cos.size(1) == q.size(2) && rope.cos.scalar_type() == at::kFloat &&
                  rope.sin.scalar_type() == at::kFloat && rope.cos.is_contiguous() &&
                  rope.sin.is_contiguous(),
              "rope: q is ", q.sizes(), ", cos is ", rope.cos.sizes());
  call.num_heads = static_cast<int32_t>(q.size(1));
  call.q = q.mutable_data_ptr();
  call.q_stride = q.stride(0);
  call.cos = rope.cos.const_data_ptr<float>();
  call.sin = rope.sin.const_data_ptr<float>();
  call.positions = rope.positions.const_data_ptr<int64_t>();
}

void CheckLogits(const at::Tensor& logits) {
  TORCH_CHECK(logits.dim() == 2 && logits.scalar_type() == at::kFloat && logits.is_contiguous(),
              "sampling: logits are ", logits.scalar_type(), " ", logits.sizes(),
              ", want contiguous rows of fp32");
}

// Rows with fewer tokens would leave a warp's queries half empty.
constexpr int64_t kMinTileTokens = 8;

void AddTiles(const AttentionRow& row, int32_t entry, int64_t tile_tokens,
              std::vector<cuda::AttentionTileEntry>& tiles) {
  const int64_t end = row.token_begin + row.num_tokens;
  for (int64_t begin = row.token_begin; begin < end; begin += tile_tokens) {
    tiles.push_back({entry, static_cast<int32_t>(begin),
                     static_cast<int32_t>(std::min(tile_tokens, end - begin))});
  }
}

void RunGate(const at::Tensor& x, bool gated, Activation activation, const at::Tensor& y) {
  CheckTokens(x, "gate: x", y.size(0), y);
  CheckTokens(y, "gate: y", y.size(0), y);
  TORCH_CHECK(x.size(1) == (gated ? 2 : 1) * y.size(1), "gate: x is ", x.sizes(), ", y is ",
              y.sizes());
  cuda::GateCall call{};
  call.type = TypeOf(y, "gate");
  call.function =
      activation == Activation::kSilu ? cuda::GateFunction::kSilu : cuda::GateFunction::kGeluTanh;
  call.gated = gated;
  call.num_tokens = static_cast<int32_t>(y.size(0));
  call.size = static_cast<int32_t>(y.size(1));
  call.x = x.const_data_ptr();
  call.x_stride = x.stride(0);
  call.y = y.mutable_data_ptr();
  call.y_stride = y.stride(0);
  Run(Kernels().gate, call, y);
}

}  // namespace

int64_t AttentionTileTokens(at::ScalarType dtype, int64_t head_dim, int64_t block_size) {
  const bool fits = dtype == at::kBFloat16 && head_dim % cuda::kMatrixEdge == 0 &&
                    block_size % cuda::kMatrixEdge == 0 && head_dim <= cuda::kMaxAttentionHeadDim;
  return fits ? cuda::TileQueries(static_cast<int32_t>(head_dim)) : 0;
}

AttentionTable::AttentionTable(std::span<const AttentionRow> all, int64_t num_tokens,
                               int64_t block_size, int64_t tile_tokens, DeviceTables& all_tables)
    : tables(&all_tables) {
  std::vector<cuda::AttentionRowEntry> entries;
  std::vector<cuda::AttentionTileEntry> tile_entries;
  std::vector<int32_t> index(static_cast<size_t>(num_tokens), -1), ids;
  for (const AttentionRow& row : all) {
    const int64_t context = row.first_position + row.num_tokens;
    const int64_t used = row.num_tokens > 0 ? (context + block_size - 1) / block_size : 0;
    TORCH_CHECK(row.token_begin >= 0 && row.num_tokens >= 0 &&
                    row.token_begin + row.num_tokens <= num_tokens &&
                    static_cast<int64_t>(row.blocks.size()) >= used,
                "attention: tokens ", row.token_begin, " + ", row.num_tokens, " of ", num_tokens,
                ", ", row.blocks.size(), " blocks for ", context, " positions");
    const auto entry = static_cast<int32_t>(entries.size());
    if (tile_tokens > 0 && row.num_tokens >= kMinTileTokens) {
      AddTiles(row, entry, tile_tokens, tile_entries);
    } else {
      std::fill_n(index.begin() + row.token_begin, row.num_tokens, entry);
      has_single_tokens = has_single_tokens || row.num_tokens > 0;
    }
    entries.push_back({static_cast<int32_t>(row.token_begin), static_cast<int32_t>(row.num_tokens),
                       static_cast<int32_t>(row.first_position),
                       static_cast<int32_t>(row.first_key), static_cast<int32_t>(ids.size())});
    ids.insert(ids.end(), row.blocks.begin(), row.blocks.begin() + used);
  }
  rows = all_tables.Add<cuda::AttentionRowEntry>(entries, index.size());
  row_of_token = all_tables.Add<int32_t>(index);
  tiles = all_tables.Add<cuda::AttentionTileEntry>(tile_entries);
  blocks = all_tables.Add<int32_t>(ids);
}

void NormalizeCuda(const at::Tensor& x, const Norm& norm, const at::Tensor& y) {
  Run(Kernels().norm, NormCallOf(x, x.size(1), norm, y), x);
}

void AddNormalizeCuda(const at::Tensor& x, const at::Tensor& residual, const Norm& norm,
                      const at::Tensor& y) {
  CheckTokens(residual, "norm: residual", x.size(0), x);
  cuda::NormCall call = NormCallOf(x, x.size(1), norm, y);
  call.residual = residual.mutable_data_ptr();
  call.residual_stride = residual.stride(0);
  Run(Kernels().norm, call, x);
}

void NormalizeHeadsCuda(const at::Tensor& x, const Norm& norm) {
  cuda::NormCall call = NormCallOf(x, x.size(2), norm, x);
  call.num_heads = static_cast<int32_t>(x.size(1));
  Run(Kernels().norm, call, x);
}

void GateCuda(const at::Tensor& gate_up, Activation activation, const at::Tensor& y) {
  RunGate(gate_up, /*gated=*/true, activation, y);
}

void ActivateCuda(const at::Tensor& x, Activation activation, const at::Tensor& y) {
  RunGate(x, /*gated=*/false, activation, y);
}

void SoftCapCuda(const at::Tensor& x, float cap) {
  TORCH_CHECK(x.scalar_type() == at::kFloat && x.is_contiguous() && cap > 0, "soft-cap: x is ",
              x.scalar_type(), " ", x.sizes(), ", cap is ", cap);
  Run(Kernels().soft_cap, cuda::SoftCapCall{x.numel(), cap, x.mutable_data_ptr<float>()}, x);
}

void AppendKvCuda(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                  const RopeRows* rope, const at::Tensor& slots, const at::Tensor& k_cache,
                  const at::Tensor& v_cache) {
  cuda::AppendKvCall call{};
  call.cache = LayoutOf(k_cache, v_cache);
  CheckTokens(k, "attention: k", k.size(0), k_cache);
  CheckTokens(v, "attention: v", k.size(0), k_cache);
  CheckIndex(slots, "attention: slots", k.size(0), at::kLong);
  TORCH_CHECK(k.sizes() == v.sizes() && k.dim() == 3 && k.size(1) == call.cache.kv_heads &&
                  k.size(2) == call.cache.head_dim,
              "attention: k is ", k.sizes(), ", v is ", v.sizes(), ", keys are ", k_cache.sizes());
  call.type = TypeOf(k, "attention");
  call.num_tokens = static_cast<int32_t>(k.size(0));
  call.k = k.const_data_ptr();
  call.k_stride = k.stride(0);
  call.v = v.const_data_ptr();
  call.v_stride = v.stride(0);
  call.slots = slots.const_data_ptr<int64_t>();
  call.keys = k_cache.mutable_data_ptr();
  call.values = v_cache.mutable_data_ptr();
  if (rope != nullptr) {
    AddRope(q, *rope, call);
  }
  Run(Kernels().append_kv, call, k);
}

void PagedAttentionCuda(const at::Tensor& q, const at::Tensor& k_cache, const at::Tensor& v_cache,
                        const AttentionTable& table, const AttentionScoring& scoring,
                        const at::Tensor& out) {
  cuda::AttentionCall call{};
  call.cache = LayoutOf(k_cache, v_cache);
  CheckTokens(q, "attention: q", q.size(0), k_cache);
  CheckTokens(out, "attention: out", q.size(0), k_cache);
  TORCH_CHECK(q.dim() == 3 && static_cast<int64_t>(table.row_of_token.count) == q.size(0) &&
                  q.sizes() == out.sizes() && q.size(1) % call.cache.kv_heads == 0 &&
                  q.size(2) == call.cache.head_dim &&
                  call.cache.head_dim <= cuda::kMaxAttentionHeadDim,
              "attention: q is ", q.sizes(), ", out is ", out.sizes(), ", with ",
              call.cache.kv_heads, " KV heads of ", call.cache.head_dim, ", at most ",
              cuda::kMaxAttentionHeadDim, ", and rows of ", table.row_of_token.count, " tokens");
  call.type = TypeOf(q, "attention");
  call.num_tokens = static_cast<int32_t>(q.size(0));
  call.num_heads = static_cast<int32_t>(q.size(1));
  call.q = q.const_data_ptr();
  call.q_stride = q.stride(0);
  call.out = out.mutable_data_ptr();
  call.out_stride = out.stride(0);
  call.keys = k_cache.const_data_ptr();
  call.values = v_cache.const_data_ptr();
  call.rows = table.tables->Data(table.rows);
  call.row_of_token = table.tables->Data(table.row_of_token);
  call.has_single_tokens = table.has_single_tokens;
  call.num_tiles = static_cast<int32_t>(table.tiles.count);
  call.tiles = table.tables->Data(table.tiles);
  TORCH_CHECK(call.num_tiles == 0 ||
                  AttentionTileTokens(q.scalar_type(), q.size(2), call.cache.block_size) > 0,
              "attention: tiles of queries for q ", q.scalar_type(), " ", q.sizes(),
              " and blocks of ", call.cache.block_size);
  call.blocks = table.tables->Data(table.blocks);
  call.scale = scoring.scale;
  call.window = static_cast<int32_t>(scoring.window);
  call.softcap = scoring.softcap;
  Run(Kernels().attention, call, q);
}

void AdjustLogitsCuda(const at::Tensor& logits,
                      std::span<const cuda::LogitAdjustment> adjustments) {
  CheckLogits(logits);
  if (adjustments.empty()) {
    return;
  }
  for (const cuda::LogitAdjustment& entry : adjustments) {
    TORCH_CHECK(entry.row >= 0 && entry.row < logits.size(0) && entry.token >= 0 &&
                    entry.token < logits.size(1),
                "sampling: an adjustment of row ", entry.row, ", token ", entry.token,
                ", logits are ", logits.sizes());
  }
  std::vector<cuda::LogitAdjustment> copy(adjustments.begin(), adjustments.end());
  const at::Tensor entries = ToDevice(copy, at::kByte, logits.device());
  cuda::AdjustCall call{};
  call.num_entries = static_cast<int32_t>(adjustments.size());
  call.logits = logits.mutable_data_ptr<float>();
  call.stride = logits.stride(0);
  call.entries = static_cast<const cuda::LogitAdjustment*>(entries.const_data_ptr());
  Run(Kernels().adjust, call, logits);
}

std::vector<cuda::SampledRow> SampleCuda(const at::Tensor& logits,
                                         std::span<const cuda::RowSampling> sampling) {
  const auto rows = static_cast<int64_t>(sampling.size());
  CheckLogits(logits);
  TORCH_CHECK(logits.size(0) == rows, "sampling: logits are ", logits.sizes(), " for ", rows,
              " rows");
  std::vector<cuda::RowSampling> copy(sampling.begin(), sampling.end());
  std::vector<cuda::SampledRow> results(sampling.size());
  const at::Tensor table = ToDevice(copy, at::kByte, logits.device());
  const at::Tensor sampled =
      at::empty({static_cast<int64_t>(results.size() * sizeof(cuda::SampledRow))},
                at::TensorOptions(at::kByte).device(logits.device()));
  cuda::SampleCall call{};
  call.num_rows = static_cast<int32_t>(rows);
  call.vocab_size = static_cast<int32_t>(logits.size(1));
  call.logits = logits.const_data_ptr<float>();
  call.stride = logits.stride(0);
  call.rows = static_cast<const cuda::RowSampling*>(table.const_data_ptr());
  call.results = static_cast<cuda::SampledRow*>(sampled.mutable_data_ptr());
  Run(Kernels().sample, call, logits);
  const at::Tensor host = sampled.cpu();
  std::memcpy(results.data(), host.const_data_ptr(), host.nbytes());
  return results;
}

}  // namespace tenon
