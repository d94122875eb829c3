// A small valid PEFT LoRA folder, to be changed one thing at a time.
#ifndef TENON_TESTS_ADAPTERS_FORMATS_ADAPTER_FIXTURE_H_
#define TENON_TESTS_ADAPTERS_FORMATS_ADAPTER_FIXTURE_H_

#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"
#include "tests/adapters/formats/safetensors_builder.h"

namespace tenon::testing {

/// LoraConfig().to_dict() of peft 0.21.2, for q_proj and v_proj at rank 2.
inline nlohmann::ordered_json PeftConfig() {
  return nlohmann::ordered_json::parse(R"({
    "alora_invocation_tokens": null, "alpha_pattern": {}, "arrow_config": null,
    "auto_mapping": null, "base_model_name_or_path": "tiny", "bias": "none", "corda_config": null,
    "ensure_weight_tying": false, "eva_config": null, "exclude_modules": null,
    "fan_in_fan_out": false, "inference_mode": true, "init_lora_weights": true,
    "kasa_config": null, "layer_replication": null, "layers_pattern": null,
    "layers_to_transform": null, "loftq_config": {}, "lora_alpha": 4, "lora_bias": false,
    "lora_dropout": 0.05, "lora_ga_config": null, "megatron_config": null,
    "megatron_core": "megatron.core", "modules_to_save": null, "monteclora_config": null,
    "peft_type": "LORA", "peft_version": "0.21.2", "qalora_group_size": 16, "r": 2,
    "rank_pattern": {}, "revision": null, "target_modules": ["q_proj", "v_proj"],
    "target_parameters": null, "task_type": "CAUSAL_LM", "trainable_token_indices": null,
    "use_bdlora": null, "use_dora": false, "use_qalora": false, "use_rslora": false,
    "velora_config": null})");
}

/// The tensor name of a module's lora_A or lora_B ("A" or "B").
inline std::string LoraName(absl::string_view module, absl::string_view matrix) {
  return absl::StrCat("base_model.model.", module, ".lora_", matrix, ".weight");
}

/// A and B of one module, 8 features in and out.
inline SafetensorsBuilder& AddLora(SafetensorsBuilder& builder, absl::string_view module,
                                   int64_t rank) {
  return builder.AddFilled(LoraName(module, "A"), {rank, 8}, 1.0f)
      .AddFilled(LoraName(module, "B"), {8, rank}, 0.5f);
}

inline SafetensorsBuilder PeftWeights() {
  SafetensorsBuilder builder;
  for (int layer = 0; layer < 2; ++layer) {
    for (absl::string_view site : {"q_proj", "v_proj"}) {
      AddLora(builder, absl::StrCat("model.layers.", layer, ".self_attn.", site), 2);
    }
  }
  return builder;
}

inline FileSet PeftFolder(const std::string& config, const std::string& weights) {
  return MakeFileSet({{"adapter_config.json", config}, {"adapter_model.safetensors", weights}});
}

}  // namespace tenon::testing

#endif  // TENON_TESTS_ADAPTERS_FORMATS_ADAPTER_FIXTURE_H_
