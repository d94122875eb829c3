// The base model's part of libtenon_cuda.so, as the server sees it: plain structs, no LibTorch, no
// CUDA.
#ifndef TENON_SERVER_KERNELS_CUDA_MODEL_KERNELS_H_
#define TENON_SERVER_KERNELS_CUDA_MODEL_KERNELS_H_

#include <cstdint>

#include "adapters/kernels/cuda/adapter_kernels.h"

namespace tenon::cuda {

enum class NormFormula : int32_t { kRms, kRmsFromOne, kLayer };  ///< NormKind
enum class GateFunction : int32_t { kSilu, kGeluTanh };          ///< Activation

/// y = norm(x), or residual += x (rounded), y = norm(residual), for rows of `size` elements: row
/// (t, h) begins at t * stride + h * size. In fp32, with NormKind's roundings.
struct NormCall {
  ElementType type;
  NormFormula formula;
  float eps;
  int32_t size;
  int32_t num_tokens, num_heads;  ///< one head for whole rows
  const void* x;
  int64_t x_stride;
  void* residual;  ///< or null
  int64_t residual_stride;
  const float* weight;  ///< [size]
  const float* bias;    ///< [size], kLayer only
  void* y;              ///< may be x
  int64_t y_stride;
};

/// The layout of a KV cache (KvCacheShape), in elements.
struct CacheLayout {
  int32_t block_size, kv_heads, head_dim;
  int64_t key_stride;    ///< from a dimension of a block's keys to the next
  int64_t value_stride;  ///< from a token of a block's values to the next
};

/// Stores the keys and values of a step at slots [num_tokens], block * block_size + offset; nothing
/// is done for a token whose slot is negative. With
/// num_heads > 0 keys are rotated on the way, and q in place: pairs (i, i + head_dim / 2) of each
/// head, by cos and sin [positions, head_dim / 2] fp32.
struct AppendKvCall {
  ElementType type;
  CacheLayout cache;
  int32_t num_tokens;
  const void* k;
  int64_t k_stride;
  const void* v;
  int64_t v_stride;
  const int64_t* slots;
  void* keys;
  void* values;
  int32_t num_heads;  ///< of q; 0: nothing is rotated, and what follows is not read
  void* q;
  int64_t q_stride;
  const float* cos;
  const float* sin;
  const int64_t* positions;  ///< [num_tokens], each a row of cos and sin
};

/// AttentionRow, with its blocks from blocks_begin on in AttentionCall::blocks.
struct AttentionRowEntry {
  int32_t token_begin, num_tokens, first_position, first_key;
  int32_t blocks_begin;
};

/// Tokens of one row that are computed together.
struct AttentionTileEntry {
  int32_t row;
  int32_t token_begin, num_tokens;  ///< within the row, at most TileQueries
};

/// The most tokens of a tile.
inline constexpr int32_t TileQueries(int32_t head_dim) {
  return head_dim <= 64 ? 64 : (head_dim <= 128 ? 32 : 16);
}

/// Causal attention of each token over its own row (attention.h). Keys are summed in tiles cut by
/// position, tiles in one order: a token's bits depend on its own row alone, and on whether it is
/// in a tile of queries. Such are for bf16 where head_dim and block_size are multiples of 16. All
/// tables are in device memory.
struct AttentionCall {
  ElementType type;
  CacheLayout cache;
  int32_t num_tokens, num_heads;
  const void* q;
  int64_t q_stride;
  void* out;  ///< must not alias q
  int64_t out_stride;
  const void* keys;
  const void* values;
  const AttentionRowEntry* rows;
  const int32_t* row_of_token;  ///< [num_tokens]; negative: none, or the token is in a tile
  bool has_single_tokens;       ///< whether any of row_of_token is not negative
  int32_t num_tiles;
  const AttentionTileEntry* tiles;
  const int32_t* blocks;
  float scale;
  int32_t window;  ///< 0: none
  float softcap;   ///< 0: none
};

/// y = f(x) * x[size:], or y = f(x) without a gate.
struct GateCall {
  ElementType type;
  GateFunction function;
  bool gated;
  int32_t num_tokens, size;
  const void* x;
  int64_t x_stride;
  void* y;
  int64_t y_stride;
};

/// x = cap * tanh(x / cap) for `count` elements, fp32.
struct SoftCapCall {
  int64_t count;
  float cap;
  float* x;
};

/// What becomes of one logit: bias is added to it, then it is divided by `repetition`, or
/// multiplied when it is negative, then `penalty` is subtracted (Sampler's steps 1 to 4).
struct LogitAdjustment {
  int32_t row, token;
  float bias, repetition;
  float penalty;  ///< +inf masks the token
};

/// Changes logits in place; entries, in device memory, are of different logits.
struct AdjustCall {
  int32_t num_entries;
  float* logits;
  int64_t stride;  ///< from a row to the next
  const LogitAdjustment* entries;
};

/// How one row of logits becomes a token (Sampler's steps 5 to 9).
struct RowSampling {
  double uniform;     ///< in [0, 1): the draw
  float temperature;  ///< 0: the largest, the lowest id of equals
  int32_t top_k;      ///< 0: all
  float top_p, min_p;
};

enum class SampledStatus : int32_t {
  kOk,
  kBadLogits,  ///< one is NaN or +inf
  kNoToken,    ///< all are -inf
};

struct SampledRow {
  int32_t token;  ///< kOk only
  SampledStatus status;
};

/// Chooses a token for each row of logits. Tables and results are in device memory.
struct SampleCall {
  int32_t num_rows, vocab_size;
  const float* logits;
  int64_t stride;  ///< from a row to the next
  const RowSampling* rows;
  SampledRow* results;
};

/// A CUDA graph that can be launched.
struct Graph;

/// What is given to the stream between the two calls is not run, and becomes the graph: its
/// launches with their arguments as they are. Nothing in between may wait for the device or take
/// memory of it. All functions return null, or what is wrong; then there is no graph.
struct GraphFunctions {
  const char* (*begin_capture)(void* stream);
  const char* (*end_capture)(void* stream, Graph** graph);
  const char* (*launch)(Graph* graph, void* stream);
  void (*destroy)(Graph* graph);
};

/// Functions run on the CUDA stream given and return null, or what is wrong.
struct ModelKernels {
  const char* (*norm)(const NormCall& call, void* stream);
  const char* (*append_kv)(const AppendKvCall& call, void* stream);
  const char* (*attention)(const AttentionCall& call, void* stream);
  const char* (*gate)(const GateCall& call, void* stream);
  const char* (*soft_cap)(const SoftCapCall& call, void* stream);
  const char* (*adjust)(const AdjustCall& call, void* stream);
  const char* (*sample)(const SampleCall& call, void* stream);
};

/// The largest head_dim of `attention`.
inline constexpr int32_t kMaxAttentionHeadDim = 256;

}  // namespace tenon::cuda

/// The name under which the library has its table: a function `const ModelKernels*()`.
#define TENON_MODEL_KERNELS_SYMBOL "tenon_model_kernels_4"
extern "C" const tenon::cuda::ModelKernels* tenon_model_kernels_4();

/// As above, a function `const GraphFunctions*()`.
#define TENON_GRAPH_FUNCTIONS_SYMBOL "tenon_graph_functions_1"
extern "C" const tenon::cuda::GraphFunctions* tenon_graph_functions_1();

#endif  // TENON_SERVER_KERNELS_CUDA_MODEL_KERNELS_H_
