#include "server/model/decoder.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "adapters/base/status_macros.h"
#include "adapters/methods/rank_share.h"
#include "server/kernels/activation.h"
#include "server/kernels/cuda_ops.h"
#include "server/kernels/norm.h"
#include "server/kernels/rope.h"
#include "server/model/decoder_loader.h"
#include "server/model/token_selection.h"

namespace tenon {
namespace {

// AppendKvCuda, of two operations.
template <auto kApplyRope, auto kWriteKv>
void AppendKv(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const RopeRows* rope,
              const at::Tensor& slots, const at::Tensor& k_cache, const at::Tensor& v_cache) {
  if (rope != nullptr) {
    kApplyRope(q, rope->cos, rope->sin, rope->positions);
    kApplyRope(k, rope->cos, rope->sin, rope->positions);
  }
  kWriteKv(k, v, slots, k_cache, v_cache);
}

}  // namespace

// The operations of one KernelKind.
struct Decoder::Kernels {
  decltype(&Normalize) normalize;
  decltype(&AddNormalize) add_normalize;
  decltype(&NormalizeHeads) normalize_heads;
  decltype(&AppendKvCuda) append_kv;
  decltype(&PagedAttention) paged_attention;  // null for kCuda, which reads an AttentionTable
  decltype(&Gate) gate;
  decltype(&Activate) activate;
  decltype(&SoftCap) soft_cap;

  static const Kernels* Of(KernelKind kind) {
    static constexpr Kernels kReference = {
        &NormalizeReference,      &AddNormalizeReference,
        &NormalizeHeadsReference, &AppendKv<&ApplyRopeReference, &WriteKvReference>,
        &PagedAttentionReference, &GateReference,
        &ActivateReference,       &SoftCapReference};
    static constexpr Kernels kCpu = {
        &Normalize,      &AddNormalize, &NormalizeHeads, &AppendKv<&ApplyRope, &WriteKv>,
        &PagedAttention, &Gate,         &Activate,       &SoftCap};
    static constexpr Kernels kCuda = {&NormalizeCuda, &AddNormalizeCuda, &NormalizeHeadsCuda,
                                      &AppendKvCuda,  nullptr,           &GateCuda,
                                      &ActivateCuda,  &SoftCapCuda};
    switch (kind) {
      case KernelKind::kReference:
        return &kReference;
      case KernelKind::kCpu:
        return &kCpu;
      case KernelKind::kCuda:
        return &kCuda;
    }
    return &kReference;
  }
};

namespace {

// The sum of what the ranks have of y, in each of them.
void AddUp(const DecoderInput& input, const at::Tensor& y) {
  if (input.collective != nullptr) {
    input.collective->AllReduce(y);
  }
}

}  // namespace

Decoder::Decoder(const ModelConfig& config, const Options& options, int64_t rank)
    : config_(config), options_(options), rank_(rank), kernels_(Kernels::Of(options.kernels)) {
  const int64_t q = config_.q_size(), kv = config_.kv_size(), inner = config_.intermediate_size;
  const auto sites = [this](LinearKind kind) -> std::vector<SiteColumns>& {
    return sites_[static_cast<size_t>(kind)];
  };
  sites(LinearKind::kQkv) =
      config_.has_fused_qkv()
          ? std::vector<SiteColumns>{{Site::kQkv, 0, q + 2 * kv}}
          : std::vector<SiteColumns>{{Site::kQ, 0, q}, {Site::kK, q, kv}, {Site::kV, q + kv, kv}};
  sites(LinearKind::kO) = {{Site::kO, 0, config_.hidden_size}};
  sites(LinearKind::kGateUp) =
      config_.is_gated()
          ? std::vector<SiteColumns>{{Site::kGate, 0, inner}, {Site::kUp, inner, inner}}
          : std::vector<SiteColumns>{{Site::kUp, 0, inner}};
  sites(LinearKind::kDown) = {{Site::kDown, 0, config_.hidden_size}};
}

absl::StatusOr<std::unique_ptr<const Decoder>> Decoder::Create(const ModelConfig& config,
                                                               const Options& options,
                                                               Checkpoint& checkpoint) {
  std::unique_ptr<Decoder> first;
  for (int64_t rank = 0; rank < std::max<int64_t>(options.num_ranks, 1); ++rank) {
    TENON_ASSIGN_OR_RETURN(const ModelConfig part, ConfigOfRank(config, rank, options.num_ranks));
    std::unique_ptr<Decoder> decoder(new Decoder(part, options, rank));
    TENON_RETURN_IF_ERROR(Loader(config, &checkpoint, decoder.get()).Load());
    if (rank == 0) {
      first = std::move(decoder);
    } else {
      first->others_.push_back(std::move(decoder));
    }
  }
  return first;
}

const Linear& Decoder::Following(int64_t layer, LinearKind kind) const {
  if (kind != LinearKind::kDown) {
    return linear(layer, static_cast<LinearKind>(static_cast<int>(kind) + 1));
  }
  return layer + 1 < config_.num_layers ? linear(layer + 1, LinearKind::kQkv) : lm_head_;
}

void Decoder::Multiply(int64_t layer, LinearKind kind, const DecoderInput& input,
                       const at::Tensor& x, const at::Tensor& y,
                       const ProductUpdates& updates) const {
  const Linear& base = linear(layer, kind);
  const int64_t tokens = x.size(0);
  Following(layer, kind).FetchWhileIdle();
  const auto run = [&](const Linear& weights, int64_t begin, int64_t end) {
    if (begin == 0 && end == tokens) {
      weights.Forward(x, y, updates);
    } else if (begin < end) {
      weights.Forward(x.narrow(0, begin, end - begin), y.narrow(0, begin, end - begin), updates,
                      begin);
    }
  };
  int64_t begin = 0;  // of the tokens that are still to be computed
  for (const AdapterSegment& segment : input.segments) {
    const Linear* const own =
        segment.merged == nullptr ? nullptr : segment.merged->Find(rank_, layer, kind);
    if (own != nullptr) {
      run(base, begin, segment.token_begin);
      run(*own, segment.token_begin, segment.token_end);
      begin = segment.token_end;
    }
  }
  run(base, begin, tokens);
}

void Decoder::ProjectQkv(int64_t layer, const DecoderInput& input, const AdapterDeltas& deltas,
                         const KvCache& cache, DecoderBuffers& buffers) const {
  const Layer& weights = layers_[layer];
  deltas.AddOffset(layer, Site::kAttentionNorm, buffers.normed);
  deltas.AddTo(layer, SitesOf(LinearKind::kQkv), buffers.normed, buffers.qkv,
               [&](const ProductUpdates& updates) {
                 Multiply(layer, LinearKind::kQkv, input, buffers.normed, buffers.qkv, updates);
               });
  if (weights.q_norm.defined()) {
    kernels_->normalize_heads(buffers.q_heads, weights.q_norm);
    kernels_->normalize_heads(buffers.k_heads, weights.k_norm);
  }
  const RopeRows* const rope =
      config_.ropes.empty() ? nullptr : &input.ropes[config_.layers[layer].rope];
  kernels_->append_kv(buffers.q_heads, buffers.k_heads, buffers.v_heads, rope, input.slots,
                      cache.keys(layer), cache.values(layer));
}

void Decoder::Attention(int64_t layer, const DecoderInput& input, const AdapterDeltas& deltas,
                        const KvCache& cache, DecoderBuffers& buffers) const {
  const Layer& weights = layers_[layer];
  AttentionScoring scoring;
  scoring.scale = static_cast<float>(config_.layers[layer].attention_scale);
  scoring.window = config_.layers[layer].window;
  scoring.softcap = static_cast<float>(config_.attention_softcap);
  if (options_.kernels == KernelKind::kCuda) {
    PagedAttentionCuda(buffers.q_heads, cache.keys(layer), cache.values(layer),
                       buffers.attention_table, scoring, buffers.attention_heads);
  } else {
    kernels_->paged_attention(buffers.q_heads, cache.keys(layer), cache.values(layer), input.rows,
                              scoring, buffers.attention_heads);
  }
  deltas.AddTo(layer, SitesOf(LinearKind::kO), buffers.attention, buffers.out,
               [&](const ProductUpdates& updates) {
                 Multiply(layer, LinearKind::kO, input,
                          deltas.ScaleInput(layer, Site::kO, buffers.attention), buffers.out,
                          updates);
               });
  AddUp(input, buffers.out);
  deltas.AddBottleneck(layer, Sublayer::kAttention, buffers.residual, buffers.out);
  if (weights.post_attention_norm.defined()) {
    kernels_->normalize(buffers.out, weights.post_attention_norm, buffers.out);
  }
}

void Decoder::FeedForward(int64_t layer, const DecoderInput& input, const AdapterDeltas& deltas,
                          DecoderBuffers& buffers) const {
  const Layer& weights = layers_[layer];
  deltas.AddTo(layer, SitesOf(LinearKind::kGateUp), buffers.normed, buffers.gate_up,
               [&](const ProductUpdates& updates) {
                 Multiply(layer, LinearKind::kGateUp, input, buffers.normed, buffers.gate_up,
                          updates);
               });
  (config_.is_gated() ? kernels_->gate : kernels_->activate)(buffers.gate_up, config_.activation,
                                                             buffers.activated);
  deltas.AddTo(layer, SitesOf(LinearKind::kDown), buffers.activated, buffers.out,
               [&](const ProductUpdates& updates) {
                 Multiply(layer, LinearKind::kDown, input,
                          deltas.ScaleInput(layer, Site::kDown, buffers.activated), buffers.out,
                          updates);
               });
  AddUp(input, buffers.out);
  deltas.AddBottleneck(layer, Sublayer::kFeedForward, buffers.residual, buffers.out);
  if (weights.post_feed_forward_norm.defined()) {
    kernels_->normalize(buffers.out, weights.post_feed_forward_norm, buffers.out);
  }
}

at::Tensor Decoder::LookUp(const DecoderInput& input) const {
  const auto rows = [this](const at::Tensor& index) {
    return embeddings_.defined() ? at::index_select(embeddings_, 0, index) : lm_head_.Rows(index);
  };
  if (input.collective == nullptr) {
    return rows(input.tokens.to(options_.device));
  }
  // A token's row is one rank's, and zero in the others' part of the sum.
  const RankShare tokens = ShareOf(config_.vocab_size, rank_, options_.num_ranks);
  const at::Tensor local = input.tokens - tokens.begin;
  const at::Tensor absent = local.lt(0).logical_or_(local.ge(tokens.count));
  const at::Tensor hidden = rows(local.clamp(0, tokens.count - 1));
  hidden.masked_fill_(absent.unsqueeze(1), 0);
  AddUp(input, hidden);
  return hidden;
}

int64_t Decoder::TileTokens(const KvCache& cache) const {
  return AttentionTileTokens(options_.dtype, config_.head_dim, cache.block_size());
}

float Decoder::EmbeddingScale() const {
  const auto scale = static_cast<float>(config_.embedding_scale);
  return options_.dtype == at::kBFloat16 ? static_cast<float>(c10::BFloat16(scale)) : scale;
}

at::Tensor Decoder::Embed(const DecoderInput& input, const AdapterDeltas& deltas) const {
  at::Tensor hidden = LookUp(input);
  if (config_.embedding_scale != 1.0) {
    hidden.mul_(EmbeddingScale());
  }
  deltas.ReplaceEmbeddings(input.tokens, EmbeddingScale(), hidden);
  if (input.virtual_embeddings.defined()) {
    const int64_t count = input.virtual_embeddings.size(0);
    hidden.narrow(0, input.tokens.size(0) - count, count).copy_(input.virtual_embeddings);
  }
  if (positions_.defined()) {
    hidden.add_(at::index_select(positions_, 0, input.positions));
  }
  return hidden;
}

void Decoder::FinishLayer(int64_t layer, const DecoderInput& input, const AdapterDeltas& deltas,
                          const KvCache& cache, DecoderBuffers& buffers) const {
  Attention(layer, input, deltas, cache, buffers);
  kernels_->add_normalize(buffers.out, buffers.residual, layers_[layer].feed_forward_norm,
                          buffers.normed);
  deltas.AddOffset(layer, Site::kFeedForwardNorm, buffers.normed);
  FeedForward(layer, input, deltas, buffers);
  // The residual addition of this layer and the norm in front of the next are one operation.
  const bool is_last = layer + 1 == config_.num_layers;
  kernels_->add_normalize(buffers.out, buffers.residual,
                          is_last ? final_norm_ : layers_[layer + 1].attention_norm,
                          buffers.normed);
  if (is_last) {
    deltas.AddOffset(0, Site::kFinalNorm, buffers.normed);
  }
}

void Decoder::FinishWanted(const DecoderInput& input, const KvCache& cache,
                           DecoderBuffers& buffers) const {
  const int64_t layer = config_.num_layers - 1, count = std::ssize(input.wanted);
  const TokenSelection selection(input.wanted, input.rows, input.segments);
  DecoderInput wanted = input;
  wanted.rows = selection.rows;
  wanted.segments = selection.segments;
  const at::Tensor index = at::empty({count}, at::TensorOptions(at::kLong));
  std::copy(input.wanted.begin(), input.wanted.end(), index.mutable_data_ptr<int64_t>());
  buffers.Select(config_, index.to(options_.device));
  AdapterDeltas deltas(wanted.segments, options_.kernels, rank_);
  DeviceTables tables(options_.device);
  if (options_.kernels == KernelKind::kCuda) {
    deltas.Plan(layer, config_.num_layers, sites_, tables, options_.device);
    buffers.attention_table =
        AttentionTable(wanted.rows, count, cache.block_size(), TileTokens(cache), tables);
    tables.Upload();
  }
  FinishLayer(layer, wanted, deltas, cache, buffers);
}

at::Tensor Decoder::Forward(const DecoderInput& input, const KvCache& cache) const {
  const int64_t tokens = input.tokens.size(0), wanted = std::ssize(input.wanted);
  TORCH_CHECK((input.collective != nullptr) == (options_.num_ranks > 1), "a decoder of ",
              options_.num_ranks, " ranks needs a collective if it is cut, and only then");
  DecoderBuffers buffers(config_, TensorOptions(), tokens);
  AdapterDeltas deltas(input.segments, options_.kernels, rank_);
  DeviceTables tables(options_.device);
  if (options_.kernels == KernelKind::kCuda) {
    deltas.Plan(0, config_.num_layers, sites_, tables, options_.device);
    buffers.attention_table =
        AttentionTable(input.rows, tokens, cache.block_size(), TileTokens(cache), tables);
    tables.Upload();
  }
  buffers.residual = Embed(input, deltas);
  RunLayers(input, deltas, cache, buffers);
  return buffers.normed.narrow(0, 0, wanted);
}

void Decoder::RunLayers(const DecoderInput& input, const AdapterDeltas& deltas,
                        const KvCache& cache, DecoderBuffers& buffers) const {
  kernels_->normalize(buffers.residual, layers_.front().attention_norm, buffers.normed);
  const int64_t last = config_.num_layers - 1;
  for (int64_t layer = 0; layer < last; ++layer) {
    ProjectQkv(layer, input, deltas, cache, buffers);
    FinishLayer(layer, input, deltas, cache, buffers);
  }
  ProjectQkv(last, input, deltas, cache, buffers);
  const int64_t wanted = std::ssize(input.wanted);
  if (wanted == buffers.normed.size(0)) {
    FinishLayer(last, input, deltas, cache, buffers);
  } else if (wanted > 0) {
    FinishWanted(input, cache, buffers);
  }
}

void Decoder::Decode(const DecoderInput& input, const AdapterDeltas& deltas, const KvCache& cache,
                     DecoderBuffers& buffers, const at::Tensor& logits) const {
  at::index_select_out(buffers.residual, embeddings_.defined() ? embeddings_ : lm_head_.Weight(), 0,
                       input.tokens);
  if (config_.embedding_scale != 1.0) {
    buffers.residual.mul_(EmbeddingScale());
  }
  if (positions_.defined()) {
    at::index_select_out(buffers.out, positions_, 0, input.positions);
    buffers.residual.add_(buffers.out);
  }
  RunLayers(input, deltas, cache, buffers);
  lm_head_.Forward(buffers.normed, logits);
}

void Decoder::CapLogits(const at::Tensor& logits) const {
  if (config_.final_softcap > 0) {
    kernels_->soft_cap(logits, static_cast<float>(config_.final_softcap));
  }
}

at::Tensor Decoder::GatherLogits(const at::Tensor& logits, Collective& collective) const {
  const int64_t ranks = options_.num_ranks, vocab = config_.vocab_size;
  const int64_t width = (vocab + ranks - 1) / ranks;
  const at::Tensor gathered =
      collective.GatherColumns(at::constant_pad_nd(logits, {0, width - logits.size(1)}));
  if (rank_ != 0) {
    return at::Tensor();
  }
  std::vector<at::Tensor> columns;
  for (int64_t rank = 0; rank < ranks; ++rank) {
    columns.push_back(gathered.narrow(1, rank * width, ShareOf(vocab, rank, ranks).count));
  }
  return at::cat(columns, 1);
}

at::Tensor Decoder::Logits(const at::Tensor& hidden, std::span<const int64_t> token_of_row,
                           std::span<const AdapterSegment> segments, Collective* collective) const {
  at::Tensor logits = at::empty({hidden.size(0), lm_head_.out_features()}, TensorOptions());
  linear(0, LinearKind::kQkv).FetchWhileIdle();  // of the next step
  lm_head_.Forward(hidden, logits);
  if (collective != nullptr) {
    logits = GatherLogits(logits, *collective);
  }
  if (rank_ != 0) {
    return at::Tensor();
  }
  AdapterDeltas(segments, options_.kernels, rank_).AddHead(token_of_row, hidden, logits);
  const at::Tensor widened =
      options_.kernels == KernelKind::kCpu ? ToFloat(logits) : logits.to(at::kFloat);
  CapLogits(widened);
  return widened;
}

int64_t Decoder::nbytes() const {
  int64_t total = lm_head_.nbytes() + final_norm_.nbytes();
  total += positions_.defined() ? static_cast<int64_t>(positions_.nbytes()) : 0;
  total += embeddings_.defined() ? static_cast<int64_t>(embeddings_.nbytes()) : 0;
  for (const Layer& layer : layers_) {
    for (const Norm* norm :
         {&layer.attention_norm, &layer.q_norm, &layer.k_norm, &layer.post_attention_norm,
          &layer.feed_forward_norm, &layer.post_feed_forward_norm}) {
      total += norm->nbytes();
    }
    for (const Linear& matrix : layer.linears) {
      total += matrix.nbytes();
    }
  }
  for (const std::unique_ptr<const Decoder>& other : others_) {
    total += other->nbytes();
  }
  return total;
}

}  // namespace tenon
