// A small valid folder of every method, to be changed one thing at a time.
#ifndef TENON_TESTS_ADAPTERS_FORMATS_METHOD_FOLDERS_H_
#define TENON_TESTS_ADAPTERS_FORMATS_METHOD_FOLDERS_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/adapters/formats/adapter_fixture.h"

namespace tenon::testing {

/// A folder taken apart: the configuration, the tensors, and the name of the tensors' file.
struct MethodFolder {
  const char* method;
  nlohmann::ordered_json config;
  SafetensorsBuilder weights;
  const char* weights_name = "adapter_model.safetensors";

  FileSet Build() const {
    return MakeFileSet({{"adapter_config.json", config.dump()}, {weights_name, weights.Build()}});
  }
};

inline std::string ModuleTensor(absl::string_view module, absl::string_view leaf) {
  return absl::StrCat("base_model.model.", module, ".", leaf);
}

constexpr char kQ[] = "model.layers.0.self_attn.q_proj";
constexpr char kDown[] = "model.layers.0.mlp.down_proj";

/// The fields that the configurations of PEFT's methods with targets share.
inline nlohmann::ordered_json TunerConfig(const char* peft_type) {
  return {{"peft_type", peft_type},
          {"peft_version", "0.21.2"},
          {"base_model_name_or_path", "tiny"},
          {"task_type", "CAUSAL_LM"},
          {"inference_mode", true},
          {"modules_to_save", nullptr},
          {"exclude_modules", nullptr},
          {"layers_to_transform", nullptr},
          {"target_modules", {"q_proj", "down_proj"}}};
}

inline MethodFolder DoraFolder() {
  MethodFolder folder{"DORA", PeftConfig(), {}};
  folder.config["use_dora"] = true;
  folder.config["use_rslora"] = true;
  folder.config["lora_bias"] = true;
  folder.config["target_modules"] = {"q_proj", "embed_tokens"};
  folder.config["bias"] = "all";
  folder.config["modules_to_save"] = {"lm_head"};
  folder.config["trainable_token_indices"] = {5, 2};
  AddLora(folder.weights, kQ, 2);
  folder.weights.AddFilled(ModuleTensor(kQ, "lora_B.bias"), {8}, 1)
      .AddFilled(ModuleTensor(kQ, "lora_magnitude_vector"), {8}, 1)
      .AddFilled(ModuleTensor(kQ, "base_layer.bias"), {8}, 1)
      .AddFilled(ModuleTensor("model.norm", "bias"), {8}, 1)
      .AddFilled(ModuleTensor("model.embed_tokens", "lora_embedding_A"), {2, 16}, 1)
      .AddFilled(ModuleTensor("model.embed_tokens", "lora_embedding_B"), {8, 2}, 1)
      .AddFilled(ModuleTensor("model.embed_tokens", "lora_magnitude_vector"), {8}, 1)
      .AddFilled(ModuleTensor("model.embed_tokens", "base_layer.weight"), {16, 8}, 1)
      .AddFilled(ModuleTensor("model.embed_tokens", "token_adapter.trainable_tokens_delta"), {2, 8},
                 1)
      .AddFilled(ModuleTensor("lm_head", "weight"), {16, 8}, 1);
  return folder;
}

inline MethodFolder Ia3Folder() {
  MethodFolder folder{"IA3", TunerConfig("IA3"), {}};
  folder.config["feedforward_modules"] = {"down_proj"};
  folder.config["fan_in_fan_out"] = false;
  folder.config["init_ia3_weights"] = true;
  folder.weights.AddFilled(ModuleTensor(kQ, "ia3_l"), {8, 1}, 1)
      .AddFilled(ModuleTensor(kDown, "ia3_l"), {1, 12}, 1);
  return folder;
}

/// PROMPT_TUNING, P_TUNING (3 tokens of 8 features) or PREFIX_TUNING (2 layers of 2 x 4).
inline MethodFolder VirtualTokensFolder(const char* peft_type) {
  const bool is_prefix = std::string(peft_type) == "PREFIX_TUNING";
  MethodFolder folder{peft_type,
                      {{"peft_type", peft_type},
                       {"base_model_name_or_path", "tiny"},
                       {"num_virtual_tokens", 3},
                       {"token_dim", is_prefix ? 4 : 8},
                       {"num_layers", 2},
                       {"num_attention_heads", 2},
                       {"num_transformer_submodules", 1},
                       {"prefix_projection", is_prefix},
                       {"encoder_hidden_size", 16}},
                      {}};
  folder.weights.AddFilled("prompt_embeddings", {3, is_prefix ? 16 : 8}, 1);
  return folder;
}

inline MethodFolder VeraFolder() {
  MethodFolder folder{"VERA", TunerConfig("VERA"), {}};
  folder.config["r"] = 3;
  folder.config["save_projection"] = true;
  folder.config["projection_prng_key"] = 0;
  folder.config["bias"] = "none";
  for (const char* module : {kQ, kDown}) {
    folder.weights.AddFilled(ModuleTensor(module, "vera_lambda_b"), {8}, 1)
        .AddFilled(ModuleTensor(module, "vera_lambda_d"), {3}, 1);
  }
  folder.weights.AddFilled("base_model.vera_A", {3, 12}, 1)
      .AddFilled("base_model.vera_B", {8, 3}, 1);
  return folder;
}

inline MethodFolder LohaFolder() {
  MethodFolder folder{"LOHA", TunerConfig("LOHA"), {}};
  folder.config["r"] = 2;
  folder.config["alpha"] = 5;
  folder.config["rank_pattern"] = {{"q_proj", 1}};
  folder.config["alpha_pattern"] = {{"down_proj", 3}};
  for (const auto& [module, rank, in] : {std::tuple{kQ, 1, 8}, std::tuple{kDown, 2, 12}}) {
    for (const char* part : {"hada_w1", "hada_w2"}) {
      folder.weights.AddFilled(ModuleTensor(module, absl::StrCat(part, "_a")), {8, rank}, 1)
          .AddFilled(ModuleTensor(module, absl::StrCat(part, "_b")), {rank, in}, 1);
    }
  }
  return folder;
}

inline MethodFolder LokrFolder() {
  MethodFolder folder{"LOKR", TunerConfig("LOKR"), {}};
  folder.config["r"] = 2;
  folder.config["alpha"] = 5;
  folder.config["decompose_both"] = true;
  folder.config["decompose_factor"] = -1;
  folder.weights.AddFilled(ModuleTensor(kQ, "lokr_w1"), {2, 2}, 1)
      .AddFilled(ModuleTensor(kQ, "lokr_w2"), {4, 4}, 1)
      .AddFilled(ModuleTensor(kDown, "lokr_w1_a"), {2, 2}, 1)
      .AddFilled(ModuleTensor(kDown, "lokr_w1_b"), {2, 3}, 1)
      .AddFilled(ModuleTensor(kDown, "lokr_w2_a"), {4, 2}, 1)
      .AddFilled(ModuleTensor(kDown, "lokr_w2_b"), {2, 4}, 1);
  return folder;
}

inline MethodFolder TokensFolder() {
  MethodFolder folder{"TRAINABLE_TOKENS",
                      {{"peft_type", "TRAINABLE_TOKENS"},
                       {"token_indices", {7, 3}},
                       {"target_modules", {"embed_tokens"}},
                       {"init_weights", true}},
                      {}};
  for (const char* module : {"model.embed_tokens", "lm_head"}) {
    folder.weights.AddFilled(ModuleTensor(module, "trainable_tokens_delta"), {2, 8}, 1);
  }
  return folder;
}

inline nlohmann::ordered_json AdapterHubConfig(nlohmann::ordered_json settings) {
  return {
      {"config", std::move(settings)}, {"hidden_size", 8},      {"model_class", "LlamaForCausalLM"},
      {"model_name", "tiny"},          {"model_type", "llama"}, {"name", "t"},
      {"version", "adapters.1.3.0"}};
}

/// A bottleneck after attention and after the feed-forward of layer 0, with every option.
inline MethodFolder BottleneckFolder() {
  MethodFolder folder{"BOTTLENECK",
                      AdapterHubConfig({{"mh_adapter", true},
                                        {"output_adapter", true},
                                        {"reduction_factor", {{"0", 4}, {"default", 2}}},
                                        {"non_linearity", "swish"},
                                        {"original_ln_before", true},
                                        {"original_ln_after", true},
                                        {"residual_before_ln", true},
                                        {"adapter_residual_before_ln", false},
                                        {"ln_before", true},
                                        {"ln_after", true},
                                        {"is_parallel", false},
                                        {"scaling", "channel"},
                                        {"use_gating", false},
                                        {"inv_adapter", nullptr},
                                        {"cross_adapter", false},
                                        {"phm_layer", false},
                                        {"phm_dim", 4},
                                        {"leave_out", {1}},
                                        {"dropout", 0.0},
                                        {"stochastic_depth", 0.0},
                                        {"init_weights", "bert"}}),
                      {},
                      "adapter.safetensors"};
  for (const char* place : {"attention_adapters", "output_adapters"}) {
    const std::string prefix = absl::StrCat("model.layers.0.", place, ".adapters.t.");
    for (const char* norm : {"adapter_norm_before", "adapter_down.0", "adapter_norm_after"}) {
      folder.weights.AddFilled(absl::StrCat(prefix, norm, ".weight"), {8}, 1)
          .AddFilled(absl::StrCat(prefix, norm, ".bias"), {8}, 0);
    }
    folder.weights.AddFilled(prefix + "adapter_down.1.weight", {2, 8}, 1)
        .AddFilled(prefix + "adapter_down.1.bias", {2}, 1)
        .AddFilled(prefix + "adapter_up.weight", {8, 2}, 1)
        .AddFilled(prefix + "adapter_up.bias", {8}, 1)
        .AddFilled(prefix + "scaling", {8}, 1);
  }
  return folder;
}

/// AdapterHub's LoRA ("add") or IA3 ("scale") on q of a fused projection and on an MLP matrix.
inline MethodFolder AdapterHubLoraFolder(const char* mode) {
  const bool is_lora = std::string(mode) == "add";
  MethodFolder folder{is_lora ? "LORA" : "IA3",
                      AdapterHubConfig({{"architecture", "lora"},
                                        {"r", is_lora ? 2 : 1},
                                        {"alpha", 3},
                                        {"composition_mode", mode},
                                        {"attn_matrices", {"v", "q"}},
                                        {"use_dora", false},
                                        {"use_gating", false},
                                        {"vera_d", nullptr}}),
                      {},
                      "adapter.safetensors"};
  const std::string fused = "transformer.h.0.attn.c_attn.loras.t.";
  const std::string plain = "transformer.h.0.mlp.c_fc.loras.t.";
  if (is_lora) {
    folder.weights.AddFilled(fused + "lora_A", {4, 8}, 1)
        .Add(fused + "lora_B", "F32", {4, 2}, Floats({1, 2, 3, 4, 5, 6, 7, 8}))
        .AddFilled(plain + "lora_A", {2, 8}, 1)
        .AddFilled(plain + "lora_B", {12, 2}, 1);
  } else {
    folder.weights.Add(fused + "lora_B", "F32", {4, 1}, Floats({2, 3, 4, 5}))
        .AddFilled(plain + "lora_B", {12, 1}, 1);
  }
  return folder;
}

inline std::vector<MethodFolder> AllMethodFolders() {
  return {{"LORA", PeftConfig(), PeftWeights()},
          DoraFolder(),
          Ia3Folder(),
          VirtualTokensFolder("PROMPT_TUNING"),
          VirtualTokensFolder("P_TUNING"),
          VirtualTokensFolder("PREFIX_TUNING"),
          VeraFolder(),
          LohaFolder(),
          LokrFolder(),
          TokensFolder(),
          BottleneckFolder(),
          AdapterHubLoraFolder("add"),
          AdapterHubLoraFolder("scale")};
}

}  // namespace tenon::testing

#endif  // TENON_TESTS_ADAPTERS_FORMATS_METHOD_FOLDERS_H_
