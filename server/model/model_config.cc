#include "server/model/model_config.h"

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "adapters/base/status_macros.h"
#include "adapters/methods/rank_share.h"
#include "server/model/json_fields.h"
#include "server/model/model_family.h"

namespace tenon {
namespace {

// Bounds far above any published model; they keep every product of sizes inside 64 bits and every
// token id inside 32.
constexpr int64_t kMaxWidth = int64_t{1} << 20;
constexpr int64_t kMaxLayers = 1024;
constexpr int64_t kMaxHeads = 1024;
constexpr int64_t kMaxHeadDim = 1024;
constexpr int64_t kMaxVocab = int64_t{1} << 24;
constexpr int64_t kMaxPositions = int64_t{1} << 26;

// Fields that never change what the model computes at inference, whatever their value.
constexpr std::array<absl::string_view, 33> kIgnoredFields = {"_attn_implementation",
                                                              "_commit_hash",
                                                              "_name_or_path",
                                                              "attention_dropout",
                                                              "attn_implementation",
                                                              "bad_words_ids",
                                                              "exponential_decay_length_penalty",
                                                              "finetuning_task",
                                                              "id2label",
                                                              "initializer_range",
                                                              "is_decoder",
                                                              "label2id",
                                                              "max_length",
                                                              "max_window_layers",
                                                              "min_length",
                                                              "name_or_path",
                                                              "num_labels",
                                                              "output_attentions",
                                                              "output_hidden_states",
                                                              "prefix",
                                                              "problem_type",
                                                              "return_dict",
                                                              "return_dict_in_generate",
                                                              "sep_token_id",
                                                              "task_specific_params",
                                                              "tokenizer_class",
                                                              "transformers.js_config",
                                                              "transformers_version",
                                                              "unsloth_fixed",
                                                              "unsloth_version",
                                                              "use_cache",
                                                              "use_return_dict",
                                                              "torchscript"};

// Fields that are read by nobody as long as they have this value.
struct NeutralField {
  absl::string_view name;
  absl::string_view value;  // as JSON
};
constexpr std::array<NeutralField, 25> kNeutralFields = {{
    {"use_bidirectional_attention", "false"},
    {"pretraining_tp", "1"},
    {"is_encoder_decoder", "false"},
    {"is_llama_config", "true"},
    {"rope_interleaved", "false"},
    {"add_cross_attention", "false"},
    {"cross_attention_hidden_size", "null"},
    {"chunk_size_feed_forward", "0"},
    {"pruned_heads", "{}"},
    {"partial_rotary_factor", "1.0"},
    {"use_sliding_window", "false"},
    {"sliding_window", "null"},
    {"quantization_config", "null"},
    {"per_layer_config", "null"},
    {"tie_encoder_decoder", "false"},
    {"use_bfloat16", "false"},
    // Generation defaults that old files keep here; any other value is a wish that the sampling
    // defaults of this server would not follow.
    {"temperature", "1.0"},
    {"top_p", "1.0"},
    {"top_k", "50"},
    {"typical_p", "1.0"},
    {"do_sample", "false"},
    {"repetition_penalty", "1.0"},
    {"length_penalty", "1.0"},
    {"num_beams", "1"},
    {"no_repeat_ngram_size", "0"},
}};

absl::Status ReadActivation(JsonFields& fields, const ModelFamily& family, ModelConfig& config) {
  TENON_ASSIGN_OR_RETURN(const std::optional<std::string> given,
                         fields.OptionalString(family.activation_field));
  const std::string name = given.value_or(std::string(family.default_activation));
  if (name == "silu" || name == "swish") {
    config.activation = Activation::kSilu;
  } else if (name == "gelu_pytorch_tanh" || name == "gelu_new") {
    config.activation = Activation::kGeluTanh;
  } else {
    return fields.NotImplemented(family.activation_field);
  }
  return absl::OkStatus();
}

absl::Status ReadHeadDim(JsonFields& fields, const ModelFamily& family, ModelConfig& config) {
  TENON_ASSIGN_OR_RETURN(const std::optional<int64_t> head_dim,
                         fields.OptionalInt("head_dim", 2, kMaxHeadDim));
  if (!head_dim.has_value() && family.requires_head_dim) {
    return fields.Invalid("head_dim", "missing");
  }
  if (!head_dim.has_value() && config.hidden_size % config.num_heads != 0) {
    return fields.Invalid(family.sizes.hidden_size,
                          absl::StrCat("must be a multiple of ", family.sizes.num_heads, " = ",
                                       config.num_heads, " when head_dim is not given"));
  }
  config.head_dim = head_dim.value_or(config.hidden_size / config.num_heads);
  if (config.head_dim > kMaxHeadDim) {
    return fields.Invalid("head_dim", absl::StrCat("the head dimension is ", config.head_dim,
                                                   ", want at most ", kMaxHeadDim));
  }
  return absl::OkStatus();
}

absl::Status ReadHeads(JsonFields& fields, const ModelFamily& family, ModelConfig& config) {
  TENON_ASSIGN_OR_RETURN(config.num_heads,
                         fields.RequiredInt(family.sizes.num_heads, 1, kMaxHeads));
  TENON_ASSIGN_OR_RETURN(const std::optional<int64_t> num_kv_heads,
                         fields.OptionalInt("num_key_value_heads", 1, kMaxHeads));
  if (!num_kv_heads.has_value() && family.requires_kv_heads) {
    return fields.Invalid("num_key_value_heads", "missing");
  }
  config.num_kv_heads = num_kv_heads.value_or(config.num_heads);
  if (config.num_heads % config.num_kv_heads != 0) {
    return fields.Invalid(
        "num_key_value_heads",
        absl::StrCat("must divide ", family.sizes.num_heads, " = ", config.num_heads));
  }
  return ReadHeadDim(fields, family, config);
}

absl::Status ReadSizes(JsonFields& fields, const ModelFamily& family, ModelConfig& config) {
  const SizeFields& names = family.sizes;
  TENON_ASSIGN_OR_RETURN(config.vocab_size, fields.RequiredInt("vocab_size", 1, kMaxVocab));
  TENON_ASSIGN_OR_RETURN(config.hidden_size, fields.RequiredInt(names.hidden_size, 1, kMaxWidth));
  TENON_ASSIGN_OR_RETURN(const std::optional<int64_t> intermediate,
                         fields.OptionalInt(names.intermediate_size, 1, kMaxWidth));
  if (!intermediate.has_value() && family.default_mlp_ratio == 0) {
    return fields.Invalid(names.intermediate_size, "missing");
  }
  config.intermediate_size = intermediate.value_or(family.default_mlp_ratio * config.hidden_size);
  TENON_ASSIGN_OR_RETURN(config.num_layers, fields.RequiredInt(names.num_layers, 1, kMaxLayers));
  TENON_ASSIGN_OR_RETURN(config.max_position_embeddings,
                         fields.RequiredInt(names.max_positions, 1, kMaxPositions));
  TENON_ASSIGN_OR_RETURN(const std::optional<double> eps,
                         fields.OptionalNumber(names.norm_eps, 0, 1));
  config.norm = family.norm;
  config.norm_eps = eps.value_or(family.default_norm_eps);
  return ReadHeads(fields, family, config);
}

// Rotary embeddings turn pairs of elements of a head.
absl::Status FinishRopes(const JsonFields& fields, ModelConfig& config) {
  for (RopeConfig& rope : config.ropes) {
    rope.head_dim = config.head_dim;
  }
  if (!config.ropes.empty() && config.head_dim % 2 != 0) {
    return fields.Invalid("head_dim", absl::StrCat("the head dimension is ", config.head_dim,
                                                   ", want an even number"));
  }
  return absl::OkStatus();
}

absl::Status ReadDType(JsonFields& fields, ModelConfig& config) {
  TENON_ASSIGN_OR_RETURN(std::optional<std::string> name, fields.OptionalString("dtype"));
  TENON_ASSIGN_OR_RETURN(const std::optional<std::string> old_name,
                         fields.OptionalString("torch_dtype"));
  const absl::string_view field = name.has_value() ? "dtype" : "torch_dtype";
  if (!name.has_value()) {
    name = old_name;
  }
  if (!name.has_value() || *name == "auto") {
    return absl::OkStatus();
  }
  if (*name == "float32") {
    config.dtype = ModelDType::kFloat32;
  } else if (*name == "bfloat16") {
    config.dtype = ModelDType::kBFloat16;
  } else if (*name == "float16") {
    config.dtype = ModelDType::kFloat16;
  } else {
    return fields.NotImplemented(field);
  }
  return absl::OkStatus();
}

// Padding ids of -1 occur in published files and mean that there is none.
absl::StatusOr<std::optional<int32_t>> ReadTokenId(JsonFields& fields, absl::string_view name,
                                                   int64_t vocab_size) {
  TENON_ASSIGN_OR_RETURN(const std::optional<int64_t> id,
                         fields.OptionalInt(name, -1, vocab_size - 1));
  if (!id.has_value() || *id < 0) {
    return std::nullopt;
  }
  return static_cast<int32_t>(*id);
}

absl::Status ReadTokens(JsonFields& fields, ModelConfig& config) {
  TENON_ASSIGN_OR_RETURN(config.bos_token_id,
                         ReadTokenId(fields, "bos_token_id", config.vocab_size));
  TENON_ASSIGN_OR_RETURN(config.pad_token_id,
                         ReadTokenId(fields, "pad_token_id", config.vocab_size));
  TENON_ASSIGN_OR_RETURN(
      config.eos_token_ids,
      fields.IntOrList("eos_token_id", 0, static_cast<int32_t>(config.vocab_size - 1)));
  return absl::OkStatus();
}

bool IsNeutral(absl::string_view name, const nlohmann::json& value) {
  for (const NeutralField& neutral : kNeutralFields) {
    if (neutral.name == name) {
      return value == nlohmann::json::parse(neutral.value);
    }
  }
  return std::find(kIgnoredFields.begin(), kIgnoredFields.end(), name) != kIgnoredFields.end();
}

// What the family did not read must not matter.
absl::Status CheckOtherFields(JsonFields& fields) {
  for (const std::string& name : fields.unread()) {
    if (!IsNeutral(name, *fields.Find(name))) {
      return fields.NotImplemented(name);
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::string_view RopeTypeName(RopeType type) {
  switch (type) {
    case RopeType::kDefault:
      return "default";
    case RopeType::kLinear:
      return "linear";
    case RopeType::kDynamic:
      return "dynamic";
    case RopeType::kLlama3:
      return "llama3";
    case RopeType::kYarn:
      return "yarn";
  }
  return "unknown";
}

std::string ModelConfig::LayerPath(int64_t layer, absl::string_view module) const {
  return absl::StrCat(modules.root, modules.layers, ".", layer, ".", module);
}

absl::StatusOr<ModelConfig> ParseModelConfig(absl::string_view json_text) {
  TENON_ASSIGN_OR_RETURN(const nlohmann::json object, ParseJsonObject("config.json", json_text));
  JsonFields fields("config.json", &object);
  ModelConfig config;
  TENON_ASSIGN_OR_RETURN(const ModelFamily* const family, FindModelFamily(fields));
  config.model_type = std::string(family->model_type);
  config.modules = family->modules;
  TENON_RETURN_IF_ERROR(ReadActivation(fields, *family, config));
  TENON_RETURN_IF_ERROR(ReadSizes(fields, *family, config));
  TENON_RETURN_IF_ERROR(ReadDType(fields, config));
  TENON_ASSIGN_OR_RETURN(config.tie_word_embeddings,
                         fields.Bool("tie_word_embeddings", family->ties_by_default));
  TENON_RETURN_IF_ERROR(ReadTokens(fields, config));
  TENON_RETURN_IF_ERROR(family->read_block(fields, config));
  TENON_RETURN_IF_ERROR(FinishRopes(fields, config));
  TENON_RETURN_IF_ERROR(CheckOtherFields(fields));
  return config;
}

absl::StatusOr<ModelConfig> ConfigOfRank(const ModelConfig& config, int64_t rank,
                                         int64_t num_ranks) {
  const auto refuse = [num_ranks](absl::string_view why, absl::string_view field, int64_t value) {
    return absl::InvalidArgumentError(absl::StrCat("tensor_parallel_size ", num_ranks, " ", why,
                                                   " the model's ", field, ", ", value));
  };
  if (num_ranks < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("tensor_parallel_size is ", num_ranks, ", must be positive"));
  }
  if (config.num_heads % num_ranks != 0) {
    return refuse("does not divide", "num_attention_heads", config.num_heads);
  }
  if (config.num_kv_heads % num_ranks != 0 && num_ranks % config.num_kv_heads != 0) {
    return refuse("neither divides nor is a multiple of", "num_key_value_heads",
                  config.num_kv_heads);
  }
  if (config.intermediate_size < num_ranks) {
    return refuse("exceeds", "intermediate_size", config.intermediate_size);
  }
  if (config.vocab_size < num_ranks) {
    return refuse("exceeds", "vocab_size", config.vocab_size);
  }
  ModelConfig part = config;
  part.num_heads = ShareOf(config.num_heads, rank, num_ranks).count;
  part.num_kv_heads = KvShareOf(config.num_kv_heads, rank, num_ranks).count;
  part.intermediate_size = ShareOf(config.intermediate_size, rank, num_ranks).count;
  return part;
}

}  // namespace tenon
