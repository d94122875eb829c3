#include "server/model/model_family.h"

#include <array>
#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "adapters/base/status_macros.h"
#include "server/model/rope_config.h"

namespace tenon {
namespace {

constexpr int64_t kMaxWindow = int64_t{1} << 26;
constexpr double kMaxScale = 1e6;

constexpr ModulePaths kLlamaModules = {.root = "model.",
                                       .embeddings = "embed_tokens",
                                       .layers = "layers",
                                       .final_norm = "norm",
                                       .head = "lm_head",
                                       .attention_norm = "input_layernorm",
                                       .q = "self_attn.q_proj",
                                       .k = "self_attn.k_proj",
                                       .v = "self_attn.v_proj",
                                       .o = "self_attn.o_proj",
                                       .feed_forward_norm = "post_attention_layernorm",
                                       .gate = "mlp.gate_proj",
                                       .up = "mlp.up_proj",
                                       .down = "mlp.down_proj"};

constexpr ModulePaths WithHeadNorms(ModulePaths modules) {
  modules.q_norm = "self_attn.q_norm";
  modules.k_norm = "self_attn.k_norm";
  return modules;
}

// Gemma's name for the norm behind attention is Llama's for the one before the feed-forward.
constexpr ModulePaths WithPostNorms(ModulePaths modules) {
  modules.post_attention_norm = "post_attention_layernorm";
  modules.feed_forward_norm = "pre_feedforward_layernorm";
  modules.post_feed_forward_norm = "post_feedforward_layernorm";
  return modules;
}

constexpr ModulePaths kGpt2Modules = {.root = "transformer.",
                                      .embeddings = "wte",
                                      .positions = "wpe",
                                      .layers = "h",
                                      .final_norm = "ln_f",
                                      .head = "lm_head",
                                      .attention_norm = "ln_1",
                                      .qkv = "attn.c_attn",
                                      .o = "attn.c_proj",
                                      .feed_forward_norm = "ln_2",
                                      .up = "mlp.c_fc",
                                      .down = "mlp.c_proj"};

// All layers alike: full attention, one rope, scores scaled by 1 / sqrt(head_dim).
absl::Status ReadUniformLayers(JsonFields& fields, ModelConfig& config) {
  TENON_ASSIGN_OR_RETURN(RopeConfig rope, ParseRopeConfig(fields, config.max_position_embeddings));
  config.ropes = {rope};
  LayerConfig layer;
  layer.attention_scale = 1.0 / std::sqrt(static_cast<double>(config.head_dim));
  config.layers.assign(config.num_layers, layer);
  return absl::OkStatus();
}

// The bias switch that covers all four projections of attention.
absl::Status ReadAttentionBias(JsonFields& fields, ModelConfig& config) {
  TENON_ASSIGN_OR_RETURN(config.qkv_bias, fields.Bool("attention_bias", false));
  config.o_bias = config.qkv_bias;
  return absl::OkStatus();
}

// The window that a family which has windows gives to its sliding layers: absent means the
// family's default, null none.
absl::StatusOr<int64_t> ReadWindow(JsonFields& fields) {
  constexpr int64_t kDefaultWindow = 4096;
  TENON_ASSIGN_OR_RETURN(const std::optional<int64_t> window,
                         fields.OptionalInt("sliding_window", 1, kMaxWindow));
  return window.value_or(fields.Contains("sliding_window") ? 0 : kDefaultWindow);
}

// A soft-cap with the meaning of null and absence as above.
absl::StatusOr<double> ReadSoftcap(JsonFields& fields, absl::string_view name, double fallback) {
  TENON_ASSIGN_OR_RETURN(const std::optional<double> cap,
                         fields.OptionalNumber(name, 1e-3, kMaxScale));
  return cap.value_or(fields.Contains(name) ? 0.0 : fallback);
}

// Which layers slide: layer_types, or slides(index) where the file has none. `window` is theirs.
template <typename Slides>
absl::StatusOr<std::vector<bool>> ReadSlidingLayers(JsonFields& fields, const ModelConfig& config,
                                                    int64_t window, Slides slides) {
  std::vector<bool> sliding(config.num_layers);
  const nlohmann::json* types = fields.Find("layer_types");
  if (types != nullptr &&
      (!types->is_array() || static_cast<int64_t>(types->size()) != config.num_layers)) {
    return fields.Invalid("layer_types",
                          absl::StrCat("want a list of ", config.num_layers, " types"));
  }
  for (int64_t i = 0; i < config.num_layers; ++i) {
    sliding[i] = types == nullptr ? slides(i) : (*types)[i] == "sliding_attention";
    if (types != nullptr && !sliding[i] && (*types)[i] != "full_attention") {
      return fields.NotImplemented("layer_types");
    }
    if (sliding[i] && window == 0) {
      return fields.Invalid(types != nullptr ? "layer_types" : "sliding_window",
                            "layers slide, but there is no window");
    }
  }
  return sliding;
}

void SetWindows(const std::vector<bool>& sliding, int64_t window, ModelConfig& config) {
  for (size_t i = 0; i < sliding.size(); ++i) {
    config.layers[i].window = sliding[i] ? window : 0;
  }
}

absl::Status ReadLlama(JsonFields& fields, ModelConfig& config) {
  TENON_RETURN_IF_ERROR(ReadUniformLayers(fields, config));
  TENON_RETURN_IF_ERROR(ReadAttentionBias(fields, config));
  TENON_ASSIGN_OR_RETURN(config.mlp_bias, fields.Bool("mlp_bias", false));
  const nlohmann::json* types = fields.Find("layer_types");
  if (types != nullptr) {
    for (const nlohmann::json& type : *types) {
      if (type != "full_attention") {
        return fields.NotImplemented("layer_types");
      }
    }
  }
  return absl::OkStatus();
}

absl::Status ReadMistral(JsonFields& fields, ModelConfig& config) {
  TENON_RETURN_IF_ERROR(ReadUniformLayers(fields, config));
  TENON_ASSIGN_OR_RETURN(const int64_t window, ReadWindow(fields));
  TENON_ASSIGN_OR_RETURN(
      const std::vector<bool> sliding,
      ReadSlidingLayers(fields, config, window, [&](int64_t) { return window > 0; }));
  // The reference masks every layer by the window and takes no notice of the types.
  for (const bool slides : sliding) {
    if (slides != (window > 0)) {
      return fields.NotImplemented("layer_types");
    }
  }
  SetWindows(sliding, window, config);
  return absl::OkStatus();
}

// Qwen2 and Qwen3: layers from max_window_layers on slide, when windows are switched on.
absl::Status ReadQwenLayers(JsonFields& fields, ModelConfig& config) {
  constexpr int64_t kDefaultWindowLayers = 28;
  TENON_RETURN_IF_ERROR(ReadUniformLayers(fields, config));
  TENON_ASSIGN_OR_RETURN(const bool uses_window, fields.Bool("use_sliding_window", false));
  TENON_ASSIGN_OR_RETURN(const int64_t stored_window, ReadWindow(fields));
  TENON_ASSIGN_OR_RETURN(const std::optional<int64_t> first,
                         fields.OptionalInt("max_window_layers", 0, kMaxWindow));
  const int64_t window = uses_window ? stored_window : 0;
  TENON_ASSIGN_OR_RETURN(const std::vector<bool> sliding,
                         ReadSlidingLayers(fields, config, window, [&](int64_t layer) {
                           return window > 0 && layer >= first.value_or(kDefaultWindowLayers);
                         }));
  SetWindows(sliding, window, config);
  return absl::OkStatus();
}

absl::Status ReadQwen2(JsonFields& fields, ModelConfig& config) {
  config.qkv_bias = true;
  return ReadQwenLayers(fields, config);
}

absl::Status ReadQwen3(JsonFields& fields, ModelConfig& config) {
  TENON_RETURN_IF_ERROR(ReadAttentionBias(fields, config));
  return ReadQwenLayers(fields, config);
}

// What Gemma 2 and 3 share. Every `period`-th layer sees everything, where layer_types is absent.
absl::StatusOr<std::vector<bool>> ReadGemmaLayers(JsonFields& fields, int64_t period,
                                                  ModelConfig& config) {
  TENON_RETURN_IF_ERROR(ReadAttentionBias(fields, config));
  fields.Find("hidden_act");  // the reference reads hidden_activation alone
  config.embedding_scale = std::sqrt(static_cast<double>(config.hidden_size));
  TENON_ASSIGN_OR_RETURN(const std::optional<double> scalar,
                         fields.OptionalNumber("query_pre_attn_scalar", 1e-3, kMaxScale));
  for (LayerConfig& layer : config.layers) {
    layer.attention_scale = 1.0 / std::sqrt(scalar.value_or(256.0));
  }
  TENON_ASSIGN_OR_RETURN(const int64_t window, ReadWindow(fields));
  TENON_ASSIGN_OR_RETURN(std::vector<bool> sliding,
                         ReadSlidingLayers(fields, config, window, [&](int64_t layer) {
                           return (layer + 1) % period != 0;
                         }));
  SetWindows(sliding, window, config);
  return sliding;
}

absl::Status ReadGemma2(JsonFields& fields, ModelConfig& config) {
  TENON_RETURN_IF_ERROR(ReadUniformLayers(fields, config));
  TENON_RETURN_IF_ERROR(ReadGemmaLayers(fields, /*period=*/2, config).status());
  TENON_ASSIGN_OR_RETURN(config.attention_softcap,
                         ReadSoftcap(fields, "attn_logit_softcapping", 50.0));
  TENON_ASSIGN_OR_RETURN(config.final_softcap,
                         ReadSoftcap(fields, "final_logit_softcapping", 30.0));
  return absl::OkStatus();
}

// attn_logit_softcapping stays unread, and so is refused: the reference takes it and does not
// apply it.
absl::Status ReadGemma3(JsonFields& fields, ModelConfig& config) {
  TENON_ASSIGN_OR_RETURN(config.ropes,
                         ParseLayerRopeConfigs(fields, config.max_position_embeddings));
  config.layers.resize(config.num_layers);
  TENON_ASSIGN_OR_RETURN(const std::optional<int64_t> period,
                         fields.OptionalInt("sliding_window_pattern", 1, kMaxWindow));
  TENON_ASSIGN_OR_RETURN(const std::optional<int64_t> new_period,
                         fields.OptionalInt("_sliding_window_pattern", 1, kMaxWindow));
  TENON_ASSIGN_OR_RETURN(const std::vector<bool> sliding,
                         ReadGemmaLayers(fields, period.value_or(new_period.value_or(6)), config));
  for (size_t i = 0; i < sliding.size(); ++i) {
    config.layers[i].rope = sliding[i] ? kSlidingRope : kFullRope;
  }
  TENON_ASSIGN_OR_RETURN(config.final_softcap, ReadSoftcap(fields, "final_logit_softcapping", 0.0));
  return absl::OkStatus();
}

absl::Status ReadGpt2(JsonFields& fields, ModelConfig& config) {
  config.qkv_bias = config.o_bias = config.mlp_bias = true;
  config.transposed_weights = true;
  TENON_ASSIGN_OR_RETURN(const bool by_head, fields.Bool("scale_attn_weights", true));
  TENON_ASSIGN_OR_RETURN(const bool by_layer,
                         fields.Bool("scale_attn_by_inverse_layer_idx", false));
  for (const char* ignored :
       {"attn_pdrop", "embd_pdrop", "resid_pdrop", "n_ctx", "reorder_and_upcast_attn",
        "summary_activation", "summary_first_dropout", "summary_proj_to_labels", "summary_type",
        "summary_use_proj"}) {
    fields.Find(ignored);
  }
  config.layers.resize(config.num_layers);
  for (int64_t i = 0; i < config.num_layers; ++i) {
    double& scale = config.layers[i].attention_scale;
    scale = by_head ? 1.0 / std::sqrt(static_cast<double>(config.head_dim)) : 1.0;
    scale /= by_layer ? static_cast<double>(i + 1) : 1.0;
  }
  return absl::OkStatus();
}

constexpr std::array<ModelFamily, 7> kFamilies = {{
    {.model_type = "llama",
     .architecture = "LlamaForCausalLM",
     .modules = kLlamaModules,
     .requires_kv_heads = false,
     .read_block = &ReadLlama},
    {.model_type = "mistral",
     .architecture = "MistralForCausalLM",
     .modules = kLlamaModules,
     .read_block = &ReadMistral},
    {.model_type = "qwen2",
     .architecture = "Qwen2ForCausalLM",
     .modules = kLlamaModules,
     .read_block = &ReadQwen2},
    {.model_type = "qwen3",
     .architecture = "Qwen3ForCausalLM",
     .modules = WithHeadNorms(kLlamaModules),
     .requires_head_dim = true,
     .read_block = &ReadQwen3},
    {.model_type = "gemma2",
     .architecture = "Gemma2ForCausalLM",
     .modules = WithPostNorms(kLlamaModules),
     .activation_field = "hidden_activation",
     .default_activation = "gelu_pytorch_tanh",
     .norm = NormKind::kRmsFromOne,
     .ties_by_default = true,
     .requires_head_dim = true,
     .read_block = &ReadGemma2},
    {.model_type = "gemma3_text",
     .architecture = "Gemma3ForCausalLM",
     .modules = WithHeadNorms(WithPostNorms(kLlamaModules)),
     .activation_field = "hidden_activation",
     .default_activation = "gelu_pytorch_tanh",
     .norm = NormKind::kRmsFromOne,
     .ties_by_default = true,
     .requires_head_dim = true,
     .read_block = &ReadGemma3},
    {.model_type = "gpt2",
     .architecture = "GPT2LMHeadModel",
     .modules = kGpt2Modules,
     .sizes = {.hidden_size = "n_embd",
               .intermediate_size = "n_inner",
               .num_layers = "n_layer",
               .num_heads = "n_head",
               .max_positions = "n_positions",
               .norm_eps = "layer_norm_epsilon"},
     .activation_field = "activation_function",
     .default_activation = "gelu_new",
     .norm = NormKind::kLayer,
     .default_norm_eps = 1e-5,
     .default_mlp_ratio = 4,
     .ties_by_default = true,
     .requires_kv_heads = false,
     .read_block = &ReadGpt2},
}};

}  // namespace

absl::StatusOr<const ModelFamily*> FindModelFamily(JsonFields& fields) {
  TENON_ASSIGN_OR_RETURN(const std::optional<std::string> model_type,
                         fields.OptionalString("model_type"));
  if (!model_type.has_value()) {
    return fields.Invalid("model_type", "missing");
  }
  for (const ModelFamily& family : kFamilies) {
    if (family.model_type != *model_type) {
      continue;
    }
    const nlohmann::json* architectures = fields.Find("architectures");
    if (architectures != nullptr &&
        *architectures != nlohmann::json::array({std::string(family.architecture)})) {
      return fields.NotImplemented("architectures");
    }
    return &family;
  }
  return fields.NotImplemented("model_type");
}

}  // namespace tenon
