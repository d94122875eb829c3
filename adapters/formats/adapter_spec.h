// AdapterSpec: what an adapter's files say, free of file format and of the base model.
#ifndef TENON_ADAPTERS_FORMATS_ADAPTER_SPEC_H_
#define TENON_ADAPTERS_FORMATS_ADAPTER_SPEC_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "adapters/formats/safetensors.h"

namespace tenon {

/// LoRA at one linear layer (arXiv:2106.09685): y += scaling * ((x @ a^T) @ b^T + b_bias).
/// At the token embedding `a` is [rank, vocab] and its columns are looked up instead of multiplied.
struct LoraModule {
  std::string module;  ///< path in the base checkpoint, "model.layers.0.self_attn.q_proj"
  TensorView a;        ///< [rank, in]
  TensorView b;        ///< [out, rank]
  double scaling = 1.0;
  std::optional<TensorView> b_bias;  ///< [out] (`lora_bias`)
  /// DoRA (arXiv:2402.09353): [out], the norms that the rows of W + scaling * b @ a are given.
  std::optional<TensorView> magnitude;
};
struct LoraSpec {
  std::vector<LoraModule> modules;  ///< sorted by module path
};

/// VeRA at one linear layer (arXiv:2310.11454), with A and B shared by all modules:
///   y += lambda_b * (B[:out] @ (lambda_d * (A[:, :in] @ x))).
struct VeraModule {
  std::string module;
  TensorView lambda_b;  ///< [out]
  TensorView lambda_d;  ///< [rank]
};
struct VeraSpec {
  std::vector<VeraModule> modules;
  TensorView a;  ///< [rank, widest in]
  TensorView b;  ///< [widest out, rank]
};

/// LoHa at one linear layer (arXiv:2108.06098): y += scaling * ((w1_a @ w1_b) * (w2_a @ w2_b)) @ x,
/// the product of the two matrices elementwise.
struct LohaModule {
  std::string module;
  TensorView w1_a, w2_a;  ///< [out, rank]
  TensorView w1_b, w2_b;  ///< [rank, in]
  double scaling = 1.0;
};
struct LohaSpec {
  std::vector<LohaModule> modules;
};

/// A factor of a Kronecker product: whole, or a product of two.
struct KroneckerFactor {
  std::optional<TensorView> whole;  ///< [rows, columns]
  std::optional<TensorView> a, b;   ///< [rows, rank], [rank, columns]
};
/// LoKr at one linear layer (arXiv:2309.14859): y += scaling * kron(w1, w2) @ x.
struct LokrModule {
  std::string module;
  KroneckerFactor w1, w2;
  double scaling = 1.0;
};
struct LokrSpec {
  std::vector<LokrModule> modules;
};

/// IA3 at one linear layer (arXiv:2205.05638): y = scale * (W x + bias), or W (scale * x) + bias
/// for a feed-forward module.
struct Ia3Module {
  std::string module;
  TensorView scale;       ///< elements: out, or in when on_input
  bool on_input = false;  ///< whether the layer's input is scaled
  double scaling = 1.0;   ///< factor on `scale` (AdapterHub's alpha; 1 in PEFT's files)
};
struct Ia3Spec {
  std::vector<Ia3Module> modules;
};

/// Prompt tuning (arXiv:2104.08691) and P-tuning (arXiv:2103.10385): virtual tokens in front, as
/// embeddings.
struct PromptSpec {
  TensorView embeddings;  ///< [num_virtual_tokens, hidden]
};

/// Prefix tuning (arXiv:2101.00190): virtual tokens in front, as keys and values of each layer that
/// enter the cache as they are, without rotary embedding.
struct PrefixSpec {
  /// [num_virtual_tokens, num_layers * 2 * token_dim]: of layer 0 the keys, then the values, ...
  TensorView keys_values;
  int64_t num_layers = 0;
  int64_t token_dim = 0;  ///< KV heads * head size
};

enum class Nonlinearity { kRelu, kGelu, kGeluTanh, kSilu, kTanh, kIdentity, kLeakyRelu };

/// Where a bottleneck module sits in a decoder layer.
enum class Sublayer : uint8_t { kAttention, kFeedForward };

/// One bottleneck module (Houlsby arXiv:1902.00751, Pfeiffer arXiv:2005.00052, parallel
/// arXiv:2110.04366): up(f(down(norm(input)))) * scaling.
struct BottleneckModule {
  std::string module;  ///< path of the decoder layer, "model.layers.0"
  Sublayer sublayer = Sublayer::kAttention;
  TensorView down, down_bias;                                      ///< [width, hidden], [width]
  TensorView up, up_bias;                                          ///< [hidden, width], [hidden]
  std::optional<TensorView> norm_before_weight, norm_before_bias;  ///< [hidden], inside the module
  std::optional<TensorView> norm_after_weight, norm_after_bias;    ///< [hidden]
  /// Learned scaling: [1], or [hidden] for one factor a channel. Replaces BottleneckSpec::scaling.
  std::optional<TensorView> learned_scaling;
};
/// AdapterHub's BnConfig as far as it decides what is computed. Names as there.
struct BottleneckSpec {
  Nonlinearity nonlinearity = Nonlinearity::kRelu;
  bool is_parallel = false;
  bool original_ln_before = false;
  bool original_ln_after = false;
  bool residual_before_ln = true;
  bool residual_post_add = false;  ///< residual_before_ln is "post_add"; the bool is then false
  bool adapter_residual_before_ln = false;
  double scaling = 1.0;
  std::vector<BottleneckModule> modules;
};

/// An adapter that has nothing but SharedParts (PEFT's TRAINABLE_TOKENS).
struct TokenRowsSpec {};

/// A bias of the base that the adapter replaces (`bias="lora_only"` or `"all"`).
struct BiasOverride {
  std::string module;  ///< a linear layer or a norm
  TensorView bias;     ///< [out]
};
/// Rows of the embedding or of the head that the adapter replaces (`trainable_token_indices`). When
/// the base ties its head to the embedding, the embedding's rows replace the head's too, unless the
/// adapter has rows for the head itself.
struct TokenRows {
  std::string module;  ///< "model.embed_tokens" or "lm_head"
  std::vector<int32_t> tokens;
  TensorView rows;  ///< [tokens, hidden]
};
/// A matrix of the base that the adapter replaces (`modules_to_save`): the embedding or the head.
struct SavedModule {
  std::string module;
  TensorView weight;  ///< [vocab, hidden]
};
/// What an adapter of any method may carry beside it.
struct SharedParts {
  std::vector<BiasOverride> biases;
  std::vector<TokenRows> token_rows;
  std::vector<SavedModule> saved_modules;
  /// Copies of the base's embedding or head that PEFT saves (save_embedding_layers). They are not
  /// applied; one that differs from the base shows that the adapter was made for another.
  std::vector<SavedModule> base_copies;
};

using MethodSpec = std::variant<LoraSpec, VeraSpec, LohaSpec, LokrSpec, Ia3Spec, PromptSpec,
                                PrefixSpec, BottleneckSpec, TokenRowsSpec>;

/// One adapter as its files describe it. The tensors are views into the FileSet that it was parsed
/// from, which `files` keeps alive, or into `built`.
struct AdapterSpec {
  std::string method;      ///< "LORA", "RSLORA", "DORA", "IA3", "PREFIX_TUNING", "BOTTLENECK", ...
  std::string base_model;  ///< base_model_name_or_path, informational, may be empty
  MethodSpec body;
  SharedParts shared;
  FileSet files;
  /// Tensors that the parser laid out anew (the parts of a fused projection, made whole).
  std::vector<std::shared_ptr<const std::string>> built;
  std::vector<std::string> warnings;
};

}  // namespace tenon

#endif  // TENON_ADAPTERS_FORMATS_ADAPTER_SPEC_H_
