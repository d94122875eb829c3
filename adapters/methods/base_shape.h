// BaseShape: what an adapter compiler needs to know of the base model. Made by server/model from
// the config.
#ifndef TENON_ADAPTERS_METHODS_BASE_SHAPE_H_
#define TENON_ADAPTERS_METHODS_BASE_SHAPE_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace tenon {

/// Where in a decoder layer a delta acts. The linear layers of a Llama-family block; kQkv is a
/// query, key and value in one (GPT-2's c_attn), kUp and kDown are also a feed-forward without a
/// gate; the norms take biases only. kEmbedding, kHead and kFinalNorm are of the model, not of a
/// layer (their SiteShape::layer is 0).
enum class Site : uint8_t {
  kQ,
  kK,
  kV,
  kQkv,
  kO,
  kGate,
  kUp,
  kDown,
  kAttentionNorm,
  kFeedForwardNorm,
  kEmbedding,
  kHead,
  kFinalNorm
};
inline constexpr int kNumSites = 13;

/// One module that adapters may target.
struct SiteShape {
  int64_t layer = 0;
  Site site = Site::kQ;
  int64_t in_features = 0;
  int64_t out_features = 0;
};

struct BaseShape {
  std::string model_type;  ///< config.json "model_type"
  std::string digest;      ///< identifies the base weights
  int64_t num_layers = 0;
  int64_t hidden_size = 0;
  int64_t vocab_size = 0;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;
  int64_t max_context_tokens = 0;
  bool tied_embeddings = false;  ///< the head is the embedding
  /// Names below a layer's path of the RMS norms (weight 1 + w) that the model applies to what a
  /// sublayer gives out, in front of the residual addition: Gemma's. Empty when it has none.
  std::string post_attention_norm, post_feed_forward_norm;
  double norm_eps = 1e-6;
  at::Device device = at::kCPU;  ///< where compiled adapters are to lie
  /// Tensor-parallel ranks that compiled adapters are cut for (CutAdapter); several: on the CPU.
  int64_t num_ranks = 1;
  /// Full module path, as in the checkpoint without ".weight" ("model.layers.0.self_attn.q_proj"),
  /// -> the site.
  absl::flat_hash_map<std::string, SiteShape> modules;
  /// Path of a decoder layer ("model.layers.0") -> its index.
  absl::flat_hash_map<std::string, int64_t> layers;
  /// Reads a parameter of the base as [out, in] fp32 (or [n]) by checkpoint name
  /// ("model.layers.0.self_attn.q_proj.weight"; transposed where the checkpoint keeps [in, out]).
  /// NOT_FOUND when there is none. Thread-safe. Slow: for compilers that need base weights (DoRA,
  /// bias overrides), once per compile.
  std::function<absl::StatusOr<at::Tensor>(absl::string_view name)> read_parameter;
};

}  // namespace tenon

#endif  // TENON_ADAPTERS_METHODS_BASE_SHAPE_H_
