// A small valid config.json for tests, and edits of it.
#ifndef TENON_TESTS_SERVER_MODEL_CONFIG_TEXT_H_
#define TENON_TESTS_SERVER_MODEL_CONFIG_TEXT_H_

#include <string>

#include "nlohmann/json.hpp"

namespace tenon {

inline nlohmann::json SmallConfig() {
  return nlohmann::json::parse(R"({
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 32,
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5, "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float32"})");
}

/// The small config with one field set.
inline std::string ConfigWith(const std::string& field, const nlohmann::json& value) {
  nlohmann::json config = SmallConfig();
  config[field] = value;
  return config.dump();
}

}  // namespace tenon

#endif  // TENON_TESTS_SERVER_MODEL_CONFIG_TEXT_H_
