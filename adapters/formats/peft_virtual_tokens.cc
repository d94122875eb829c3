// Prompt tuning (arXiv:2104.08691), P-tuning (arXiv:2103.10385) and prefix tuning
// (arXiv:2101.00190): one tensor, the result of whatever encoder trained it.

#include <utility>

#include "absl/strings/str_cat.h"
#include "adapters/base/status_macros.h"
#include "adapters/formats/config_fields.h"
#include "adapters/formats/peft_config.h"
#include "adapters/formats/peft_methods.h"
#include "adapters/formats/tensor_checks.h"

namespace tenon {
namespace {

using Json = nlohmann::ordered_json;

constexpr absl::string_view kTensor = "prompt_embeddings";
constexpr int64_t kMaxDim = 1 << 20;  // of layers and of features; products stay in 64 bits

constexpr absl::string_view kFields[] = {
    "num_virtual_tokens", "token_dim", "num_layers", "num_transformer_submodules",
    // Training's: the file has what came of them.
    "num_attention_heads", "prompt_tuning_init", "prompt_tuning_init_text",
    "tokenizer_name_or_path", "tokenizer_kwargs", "encoder_reparameterization_type",
    "encoder_hidden_size", "encoder_num_layers", "encoder_dropout", "prefix_projection",
    "init_weights"};

struct VirtualTokens {
  PeftConfig peft;
  int64_t num_tokens = 0;
  int64_t token_dim = 0;
  NamedTensor embeddings;
};

absl::StatusOr<int64_t> ReadDim(const Json& config, absl::string_view name) {
  return CheckCount(name, Field(config, name), kMaxDim, "dimension", "INVALID_CONFIG");
}

absl::StatusOr<VirtualTokens> ReadVirtualTokens(const Json& config, const SafetensorsFile& file,
                                                const AdapterLimits& limits) {
  VirtualTokens tokens;
  TENON_ASSIGN_OR_RETURN(tokens.peft, ReadPeftConfig(config, kFields, /*has_targets=*/false));
  const Json& submodules = Field(config, "num_transformer_submodules");
  if (!submodules.is_null() && submodules != Json(1)) {
    return UnsupportedConfig("num_transformer_submodules", submodules,
                             "a decoder has one; encoder-decoder models are not served");
  }
  TENON_ASSIGN_OR_RETURN(
      tokens.num_tokens,
      CheckCount("num_virtual_tokens", Field(config, "num_virtual_tokens"),
                 limits.max_virtual_tokens, "max_virtual_tokens", "VIRTUAL_TOKEN_LIMIT"));
  TENON_ASSIGN_OR_RETURN(tokens.token_dim, ReadDim(config, "token_dim"));
  for (const auto& [name, view] : file.tensors) {
    if (name != kTensor) {
      return RefuseTensor("UNKNOWN_TENSOR", name, "is not prompt_embeddings, the method's only");
    }
    tokens.embeddings = {name, view};
  }
  if (tokens.embeddings.name.empty()) {
    return RefuseTensor("NO_TENSORS", kTensor, "is missing; the file holds no tensors");
  }
  return tokens;
}

}  // namespace

absl::StatusOr<AdapterSpec> ParsePeftPromptTuning(const Json& config, const SafetensorsFile& file,
                                                  const AdapterLimits& limits) {
  TENON_ASSIGN_OR_RETURN(VirtualTokens tokens, ReadVirtualTokens(config, file, limits));
  TENON_RETURN_IF_ERROR(CheckShape(tokens.embeddings, {tokens.num_tokens, tokens.token_dim}));
  AdapterSpec spec;
  spec.method = Field(config, "peft_type").get<std::string>();
  spec.base_model = std::move(tokens.peft.base_model);
  spec.body = PromptSpec{tokens.embeddings.view};
  return spec;
}

absl::StatusOr<AdapterSpec> ParsePeftPrefixTuning(const Json& config, const SafetensorsFile& file,
                                                  const AdapterLimits& limits) {
  TENON_ASSIGN_OR_RETURN(VirtualTokens tokens, ReadVirtualTokens(config, file, limits));
  TENON_ASSIGN_OR_RETURN(const int64_t num_layers, ReadDim(config, "num_layers"));
  TENON_RETURN_IF_ERROR(
      CheckShape(tokens.embeddings, {tokens.num_tokens, num_layers * 2 * tokens.token_dim}));
  AdapterSpec spec;
  spec.method = "PREFIX_TUNING";
  spec.base_model = std::move(tokens.peft.base_model);
  spec.body = PrefixSpec{tokens.embeddings.view, num_layers, tokens.token_dim};
  return spec;
}

}  // namespace tenon
