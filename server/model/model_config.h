// ModelConfig: the architecture that a Hugging Face config.json describes.
#ifndef TENON_SERVER_MODEL_MODEL_CONFIG_H_
#define TENON_SERVER_MODEL_MODEL_CONFIG_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace tenon {

/// How rotary frequencies are stretched for long contexts; names as in transformers' rope_type.
enum class RopeType { kDefault, kLinear, kDynamic, kLlama3, kYarn };

absl::string_view RopeTypeName(RopeType type);

/// Rotary position embedding (arXiv:2104.09864) and its scaling. Fields that a type does not use
/// keep their defaults.
struct RopeConfig {
  RopeType type = RopeType::kDefault;
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

/// A decoder of the Llama family. Every value was checked by ParseModelConfig.
struct ModelConfig {
  std::string model_type;  ///< "llama"
  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_layers = 0;
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;  ///< divides num_heads
  int64_t head_dim = 0;      ///< even; need not be hidden_size / num_heads
  int64_t max_position_embeddings = 0;
  double rms_norm_eps = 1e-6;
  bool tie_word_embeddings = false;
  bool attention_bias = false;  ///< q, k, v and o have biases
  bool mlp_bias = false;        ///< gate, up and down have biases
  RopeConfig rope;
  std::optional<ModelDType> dtype;  ///< absent when the config names none
  std::optional<int32_t> bos_token_id;
  std::optional<int32_t> pad_token_id;
  std::vector<int32_t> eos_token_ids;

  int64_t q_size() const { return num_heads * head_dim; }
  int64_t kv_size() const { return num_kv_heads * head_dim; }
};

/// Parses and checks config.json, as transformers 5.23 writes it and as version 4 did.
///
/// A field that this server does not know, or a value that would change the answer in a way it does
/// not compute, is refused by name: a model that is served is served as its authors run it.
/// INVALID_ARGUMENT when the file is malformed or a value is out of range; FAILED_PRECONDITION when
/// it is valid but not implemented.
absl::StatusOr<ModelConfig> ParseModelConfig(absl::string_view json_text);

}  // namespace tenon

#endif  // TENON_SERVER_MODEL_MODEL_CONFIG_H_
