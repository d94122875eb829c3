// ModelConfig: the architecture that a Hugging Face config.json describes.
#ifndef TENON_SERVER_MODEL_MODEL_CONFIG_H_
#define TENON_SERVER_MODEL_MODEL_CONFIG_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/kernels/activation.h"
#include "server/kernels/norm.h"

namespace tenon {

/// How rotary frequencies are stretched for long contexts; names as in transformers' rope_type.
enum class RopeType { kDefault, kLinear, kDynamic, kLlama3, kYarn };

absl::string_view RopeTypeName(RopeType type);

/// Rotary position embedding (arXiv:2104.09864) and its scaling. Fields that a type does not use
/// keep their defaults.
struct RopeConfig {
  RopeType type = RopeType::kDefault;
  int64_t head_dim = 0;                 ///< even
  int64_t max_position_embeddings = 0;  ///< the model's
  double theta = 10000.0;
  double factor = 1.0;  ///< >= 1 for every type but kDefault
  /// Context length of the pretraining (llama3, yarn).
  int64_t original_max_position_embeddings = 0;
  double low_freq_factor = 1.0;   ///< llama3
  double high_freq_factor = 4.0;  ///< llama3, > low_freq_factor
  double beta_fast = 32.0;        ///< yarn
  double beta_slow = 1.0;         ///< yarn
  bool truncate = true;           ///< yarn: round the correction range outwards
  /// yarn: the factor on cos and sin, worked out from attention_factor, mscale, mscale_all_dim.
  double attention_scaling = 1.0;
};

/// Element type of the checkpoint as its config states it.
enum class ModelDType { kFloat32, kBFloat16, kFloat16 };

/// The modules of a decoder under the names that its checkpoint and its adapters know. An empty
/// name means that the model has no such module. Layer i's are behind "<root><layers>.<i>.".
struct ModulePaths {
  absl::string_view root = "";  ///< in front of all but the head; some checkpoints leave it out
  absl::string_view embeddings = "";
  absl::string_view positions = "";  ///< learned position embeddings
  absl::string_view layers = "";
  absl::string_view final_norm = "";
  absl::string_view head = "";
  // Of a layer, in the order of use:
  absl::string_view attention_norm = "";
  absl::string_view q = "", k = "", v = "";
  absl::string_view qkv = "";  ///< one module in place of the three
  absl::string_view q_norm = "", k_norm = "";
  absl::string_view o = "";
  absl::string_view post_attention_norm = "";  ///< of what the sublayer adds
  absl::string_view feed_forward_norm = "";
  absl::string_view gate = "";  ///< none: the activation is applied to up
  absl::string_view up = "";
  absl::string_view down = "";
  absl::string_view post_feed_forward_norm = "";  ///< of what the sublayer adds
};

/// What differs from layer to layer.
struct LayerConfig {
  int64_t window = 0;  ///< see AttentionScoring::window
  size_t rope = 0;     ///< index into ModelConfig::ropes, when there are any
  double attention_scale = 1.0;
};

/// A decoder, described as data. Every value was checked by ParseModelConfig.
struct ModelConfig {
  std::string model_type;  ///< "llama", "gemma3_text"
  ModulePaths modules;
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_layers = 0;
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;  ///< divides num_heads
  int64_t head_dim = 0;      ///< need not be hidden_size / num_heads
  int64_t max_position_embeddings = 0;
  NormKind norm = NormKind::kRms;  ///< of every norm of the model
  double norm_eps = 1e-6;
  Activation activation = Activation::kSilu;
  bool tie_word_embeddings = false;
  bool qkv_bias = false;
  bool o_bias = false;
  bool mlp_bias = false;            ///< gate, up and down have biases
  bool transposed_weights = false;  ///< the checkpoint's matrices are [in, out]; not embeddings
  double embedding_scale = 1.0;     ///< rounded to the dtype before it is used
  double attention_softcap = 0.0;   ///< see AttentionScoring::softcap
  double final_softcap = 0.0;       ///< of the logits; 0 for none
  /// Rotary embeddings, empty for learned positions.
  std::vector<RopeConfig> ropes;
  std::vector<LayerConfig> layers;  ///< [num_layers]
  std::optional<ModelDType> dtype;  ///< absent when the config names none
  std::optional<int32_t> bos_token_id;
  std::optional<int32_t> pad_token_id;
  std::vector<int32_t> eos_token_ids;

  int64_t q_size() const { return num_heads * head_dim; }
  int64_t kv_size() const { return num_kv_heads * head_dim; }
  bool is_gated() const { return !modules.gate.empty(); }
  bool has_fused_qkv() const { return !modules.qkv.empty(); }
  /// Path of layer `layer`'s module, as adapters name it.
  std::string LayerPath(int64_t layer, absl::string_view module) const;
};

/// What one of `num_ranks` tensor-parallel ranks computes of the model: its share of the heads, the
/// KV heads and the intermediate features (rank_share.h); the rest is every rank's, the vocabulary
/// as well. INVALID_ARGUMENT, naming the field, when the ranks do not divide the heads; when
/// neither the ranks divide the KV heads nor these the ranks; when there are more ranks than
/// intermediate features or tokens.
absl::StatusOr<ModelConfig> ConfigOfRank(const ModelConfig& config, int64_t rank,
                                         int64_t num_ranks);

/// Parses and checks config.json, as transformers 5.23 writes it and as version 4 did: of Llama,
/// Mistral, Qwen2, Qwen3, Gemma 2, Gemma 3 (text) and GPT-2.
///
/// A field that this server does not know, or a value that would change the answer in a way it does
/// not compute, is refused by name: a model that is served is served as its authors run it.
/// INVALID_ARGUMENT when the file is malformed or a value is out of range; FAILED_PRECONDITION when
/// it is valid but not implemented.
absl::StatusOr<ModelConfig> ParseModelConfig(absl::string_view json_text);

}  // namespace tenon

#endif  // TENON_SERVER_MODEL_MODEL_CONFIG_H_
