#include "adapters/methods/context.h"

#include <utility>

#include "adapters/base/status_macros.h"

namespace tenon {
namespace {

// What errors call the one tensor of these adapters.
constexpr absl::string_view kTensor = "prompt_embeddings";

}  // namespace

absl::Status CompilePrompt(const PromptSpec& spec, AdapterBuilder& builder) {
  TENON_RETURN_IF_ERROR(AdapterBuilder::CheckSize(
      kTensor, "the size of an embedding", spec.embeddings.shape[1], builder.base().hidden_size));
  AdapterContext context;
  context.num_tokens = spec.embeddings.shape[0];
  TENON_ASSIGN_OR_RETURN(context.embeddings, builder.Cast(kTensor, builder.Read(spec.embeddings)));
  return builder.SetContext(std::move(context));
}

absl::Status CompilePrefix(const PrefixSpec& spec, AdapterBuilder& builder) {
  const BaseShape& base = builder.base();
  TENON_RETURN_IF_ERROR(
      AdapterBuilder::CheckSize(kTensor, "num_layers", spec.num_layers, base.num_layers));
  TENON_RETURN_IF_ERROR(AdapterBuilder::CheckSize(kTensor, "token_dim (KV heads x head size)",
                                                  spec.token_dim,
                                                  base.num_kv_heads * base.head_dim));
  TENON_RETURN_IF_ERROR(AdapterBuilder::CheckSize(kTensor, "the size of a virtual token",
                                                  spec.keys_values.shape[1],
                                                  2 * spec.num_layers * spec.token_dim));
  AdapterContext context;
  context.num_tokens = spec.keys_values.shape[0];
  // PEFT's view: a token has the keys of layer 0, its values, the keys of layer 1, ...
  const at::Tensor layers =
      builder.Read(spec.keys_values)
          .view({context.num_tokens, base.num_layers, 2, base.num_kv_heads, base.head_dim})
          .permute({2, 1, 0, 3, 4});
  TENON_ASSIGN_OR_RETURN(context.keys, builder.Cast(kTensor, layers.select(0, 0)));
  TENON_ASSIGN_OR_RETURN(context.values, builder.Cast(kTensor, layers.select(0, 1)));
  return builder.SetContext(std::move(context));
}

}  // namespace tenon
