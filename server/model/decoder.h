// Decoder: the forward pass of the architectures that ModelConfig describes.
#ifndef TENON_SERVER_MODEL_DECODER_H_
#define TENON_SERVER_MODEL_DECODER_H_

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "server/kernels/attention.h"
#include "server/kernels/collective.h"
#include "server/kernels/linear.h"
#include "server/kernels/norm.h"
#include "server/model/adapter_deltas.h"
#include "server/model/decoder_buffers.h"
#include "server/model/kv_cache.h"
#include "server/model/merged_weights.h"
#include "server/model/model_config.h"
#include "server/model/rope_table.h"
#include "server/model/weights.h"

namespace tenon {

/// What the forward pass of one step needs, T tokens in all. Tensors lie on the decoder's device
/// but where another is named.
struct DecoderInput {
  at::Tensor tokens;  ///< [T] int64 on the CPU, each in [0, vocab_size)
  /// [V, hidden]: what the last V tokens enter with, whatever `tokens` says of them; undefined when
  /// V is 0. As they are: an embedding scale does not apply.
  at::Tensor virtual_embeddings;
  at::Tensor slots;                          ///< [T] int64: where each token's keys and values go
  at::Tensor positions;                      ///< [T] int64
  std::span<const RopeRows> ropes;           ///< one for each of ModelConfig::ropes
  std::span<const AttentionRow> rows;        ///< cover all tokens
  std::span<const AdapterSegment> segments;  ///< ascending, disjoint; need not cover all tokens
  /// [W] ascending: the tokens whose hidden states are asked for. Of the others the last layer
  /// leaves nothing but keys and values.
  std::span<const int64_t> wanted;
  /// The rank's end of the group; null when the model is not cut.
  Collective* collective = nullptr;
};

/// Weights and arithmetic of a pre-norm decoder, as transformers' Llama, Mistral, Qwen 2 and 3,
/// Gemma 2 and 3 (text) and GPT-2 have them; the config says which parts there are.
///
/// Cut for tensor parallelism (Megatron-LM, arXiv:1909.08053) each rank has a decoder of its own:
/// its heads, its columns of gate and up, its inputs of o and down, its rows of the embedding and
/// the head. Ranks add up what o, down and the embedding give, and put their logits side by side.
///
/// Thread-safe: immutable after Create; the KV cache is the caller's. With KernelKind::kCpu every
/// row of a result depends on its own sequence and adapters alone, bit for bit.
class Decoder {
 public:
  struct Options {
    at::ScalarType dtype = at::kFloat;  ///< fp32 or bf16: weights, activations and KV cache
    KernelKind kernels = KernelKind::kCpu;
    at::Device device = at::kCPU;  ///< of weights, activations and KV cache
    /// Of the linear layers and the head; norms, biases and separate embeddings stay in dtype.
    WeightFormat weights = WeightFormat::kAsGiven;
    int64_t num_ranks = 1;  ///< tensor-parallel; more than 1: on the CPU
  };

  /// Takes every tensor of the checkpoint. Errors name the tensor; INVALID_ARGUMENT when the model
  /// cannot be cut (ConfigOfRank). Gives rank 0's decoder, which has the others.
  static absl::StatusOr<std::unique_ptr<const Decoder>> Create(const ModelConfig& config,
                                                               const Options& options,
                                                               Checkpoint& checkpoint);

  /// Computes the tokens, writes their keys and values to `cache` and returns the normed hidden
  /// states [W, hidden] of those that are wanted. Throws c10::Error when LibTorch does.
  at::Tensor Forward(const DecoderInput& input, const KvCache& cache) const;

  /// The logits [R, vocab] fp32 of hidden states [R, hidden]; row r is token token_of_row[r] of the
  /// step, which ascend. Of a model that is cut rank 0 has them, the others an undefined tensor.
  at::Tensor Logits(const at::Tensor& hidden, std::span<const int64_t> token_of_row,
                    std::span<const AdapterSegment> segments, Collective* collective) const;

  /// A step of one token a row, all of them wanted, in memory that is there: what a DeviceGraph
  /// records. kCuda on one rank. Of `input`, tokens lie on the device and segments are not read;
  /// deltas are planned, as are the buffers' attention_table and the tables of both uploaded.
  /// Writes the logits [T, vocab] in the decoder's dtype, to which CapLogits has yet to come.
  void Decode(const DecoderInput& input, const AdapterDeltas& deltas, const KvCache& cache,
              DecoderBuffers& buffers, const at::Tensor& logits) const;
  /// The model's soft cap of logits fp32, in place, where it has one.
  void CapLogits(const at::Tensor& logits) const;

  /// The sites of AdapterDeltas::Plan.
  std::span<const std::vector<SiteColumns>> sites() const { return sites_; }

  /// A matrix of a layer, for those who make another of it.
  const Linear& linear(int64_t layer, LinearKind kind) const {
    return layers_[layer].linears[static_cast<size_t>(kind)];
  }

  /// The decoder of another rank. REQUIRES: this is rank 0's.
  const Decoder& OfRank(int64_t other) const {
    return other == 0 ? *this : *others_[static_cast<size_t>(other - 1)];
  }
  int64_t rank() const { return rank_; }
  int64_t num_ranks() const { return options_.num_ranks; }

  /// Of what this rank computes (ConfigOfRank).
  const ModelConfig& config() const { return config_; }
  const Options& options() const { return options_; }
  /// Bytes of all weights as they are kept; rank 0's: over all ranks.
  int64_t nbytes() const;
  /// Elements of the checkpoint's tensors, a tied head counted once.
  int64_t num_parameters() const { return num_parameters_; }

 private:
  struct Layer {
    std::array<Linear, kNumLinearKinds> linears;  // by LinearKind; kGateUp may be up alone
    Norm attention_norm;
    Norm q_norm, k_norm;       // of each head; undefined for none
    Norm post_attention_norm;  // undefined for none
    Norm feed_forward_norm;
    Norm post_feed_forward_norm;  // undefined for none
  };
  struct Kernels;
  class Loader;

  /// `config` as ConfigOfRank gives it.
  Decoder(const ModelConfig& config, const Options& options, int64_t rank);

  at::TensorOptions TensorOptions() const {
    return at::TensorOptions(options_.dtype).device(options_.device);
  }
  std::span<const SiteColumns> SitesOf(LinearKind kind) const {
    return sites_[static_cast<size_t>(kind)];
  }
  /// The embeddings of the tokens, [T, hidden].
  at::Tensor LookUp(const DecoderInput& input) const;
  /// The logits [R, vocab] of all ranks' [R, vocab / num_ranks]; undefined but for rank 0.
  at::Tensor GatherLogits(const at::Tensor& logits, Collective& collective) const;
  /// The matrix that a step multiplies with after this one.
  const Linear& Following(int64_t layer, LinearKind kind) const;
  at::Tensor Embed(const DecoderInput& input, const AdapterDeltas& deltas) const;
  /// Of an AttentionTable.
  int64_t TileTokens(const KvCache& cache) const;
  /// What embeddings are multiplied with, as the dtype has it.
  float EmbeddingScale() const;
  /// All layers and the last norm: from `residual` to the first rows of `normed`.
  void RunLayers(const DecoderInput& input, const AdapterDeltas& deltas, const KvCache& cache,
                 DecoderBuffers& buffers) const;
  /// y = x W^T + updates + b, each run of tokens with its own W and b.
  void Multiply(int64_t layer, LinearKind kind, const DecoderInput& input, const at::Tensor& x,
                const at::Tensor& y, const ProductUpdates& updates) const;
  /// A layer's queries into the buffers, its keys and values to the cache.
  void ProjectQkv(int64_t layer, const DecoderInput& input, const AdapterDeltas& deltas,
                  const KvCache& cache, DecoderBuffers& buffers) const;
  /// What is left of a layer then, and the norm behind it.
  void FinishLayer(int64_t layer, const DecoderInput& input, const AdapterDeltas& deltas,
                   const KvCache& cache, DecoderBuffers& buffers) const;
  /// The same of the last layer, for the tokens that are wanted.
  void FinishWanted(const DecoderInput& input, const KvCache& cache, DecoderBuffers& buffers) const;
  void Attention(int64_t layer, const DecoderInput& input, const AdapterDeltas& deltas,
                 const KvCache& cache, DecoderBuffers& buffers) const;
  void FeedForward(int64_t layer, const DecoderInput& input, const AdapterDeltas& deltas,
                   DecoderBuffers& buffers) const;

  ModelConfig config_;
  Options options_;
  int64_t rank_;
  std::vector<std::unique_ptr<const Decoder>> others_;  // rank 0's only: ranks 1, 2, ...
  const Kernels* kernels_;
  // [vocab / num_ranks, hidden]; undefined when lm_head_ is that matrix (tied).
  at::Tensor embeddings_;
  std::vector<Layer> layers_;
  std::array<std::vector<SiteColumns>, kNumLinearKinds> sites_;  // by LinearKind: its parts
  at::Tensor positions_;  // [max_position_embeddings, hidden]; undefined when there are ropes
  Norm final_norm_;
  Linear lm_head_;
  int64_t num_parameters_ = 0;
};

}  // namespace tenon

#endif  // TENON_SERVER_MODEL_DECODER_H_
