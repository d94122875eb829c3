#include "server/model/decode_graphs.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <bit>
#include <numeric>

namespace tenon {
namespace {

// Of a layer: the sites of its products, scaled inputs and norms (the last norm counts for each),
// and its sublayers.
constexpr int64_t kSites = 12, kSublayers = 2;
// What a row group may have on average, more of which are not recorded: adapters, elements of
// LowRankDelta's rank over the sites of a product, columns of bottlenecks.
constexpr int64_t kTermsPerGroup = 2, kRankPerRow = 1024, kWidthPerRow = 1024;
// Graphs there may be, for shapes are many in theory, and failures until no more are made.
constexpr size_t kMaxGraphs = 512;
constexpr int64_t kMaxFailures = 3;
// From here on rows are rounded up to a multiple, below to a power of two.
constexpr int64_t kRowStep = 8;

int64_t RoundUp(int64_t rows) {
  return rows < kRowStep ? static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(rows)))
                         : (rows + kRowStep - 1) / kRowStep * kRowStep;
}

// `values`, then `fill` up to `size`.
std::vector<int64_t> Padded(const at::Tensor& values, int64_t size, int64_t fill) {
  const int64_t* const data = values.const_data_ptr<int64_t>();
  std::vector<int64_t> padded(data, data + values.numel());
  padded.resize(static_cast<size_t>(size), fill);
  return padded;
}

}  // namespace

DecodeGraphs::DecodeGraphs(const Decoder* decoder, const KvCache* cache,
                           std::span<const RopeTable> ropes, int64_t max_positions)
    : decoder_(decoder), cache_(cache), ropes_(ropes), tables_(decoder->options().device) {
  const ModelConfig& config = decoder->config();
  const auto options =
      at::TensorOptions(decoder->options().dtype).device(decoder->options().device);
  const auto floats = options.dtype(at::kFloat);
  DecoderBuffers largest(config, options, kMaxRows);
  largest.residual = at::empty({kMaxRows, config.hidden_size}, options);
  buffers_.emplace(kMaxRows, std::move(largest));
  logits_ = at::empty({kMaxRows, config.vocab_size}, options);
  wide_ = decoder->options().dtype == at::kFloat ? logits_
                                                 : at::empty({kMaxRows, config.vocab_size}, floats);
  delta_scratch_ = at::empty({kMaxRows * kRankPerRow}, floats);
  module_inputs_ = at::empty({kMaxRows * kTermsPerGroup * config.hidden_size}, floats);
  module_values_ = at::empty_like(module_inputs_);
  module_inner_ = at::empty({kMaxRows * kWidthPerRow}, floats);
  widest_ = std::max({config.hidden_size, config.q_size(), config.intermediate_size});
  scaled_ = at::empty({kMaxRows * widest_}, options);
  tables_.Reserve(TableBytes(max_positions));
}

size_t DecodeGraphs::TableBytes(int64_t max_positions) const {
  const int64_t layers = decoder_->config().num_layers;
  const int64_t blocks = (max_positions + cache_->block_size() - 1) / cache_->block_size();
  const auto bytes = [](int64_t count, size_t size) { return static_cast<size_t>(count) * size; };
  // Of a group: itself and its terms.
  const size_t delta = sizeof(cuda::RowGroup) + kTermsPerGroup * sizeof(cuda::DeltaTerm);
  const size_t module = sizeof(cuda::RowGroup) + kTermsPerGroup * sizeof(cuda::BottleneckEntry);
  const size_t row = 3 * sizeof(int64_t) + sizeof(cuda::AttentionRowEntry) + sizeof(int32_t) +
                     bytes(blocks, sizeof(int32_t));
  const size_t alignment = 256;
  return bytes(kMaxRows * layers, kSites * delta + kSublayers * module) + bytes(kMaxRows, row) +
         alignment;
}

bool DecodeGraphs::Fits(const FlatBatch& flat) const {
  const int64_t rows = std::ssize(flat.rows);
  const auto is_stretched = [&flat](const RopeTable& rope) {
    return rope.Stretches(flat.positions);
  };
  return rows > 0 && rows <= kMaxRows && std::ssize(flat.wanted) == rows &&
         std::ssize(flat.positions) == rows && !flat.virtual_embeddings.defined() &&
         std::none_of(flat.segments.begin(), flat.segments.end(),
                      [](const AdapterSegment& segment) { return segment.merged != nullptr; }) &&
         std::none_of(ropes_.begin(), ropes_.end(), is_stretched);
}

AdapterDeltas::Frames DecodeGraphs::FramesFor(int64_t groups) const {
  const int64_t terms = groups * kTermsPerGroup * decoder_->config().num_layers;
  return {{groups, kSites * terms, delta_scratch_},
          {groups, kSublayers * terms, module_inputs_, module_values_, module_inner_},
          scaled_,
          widest_,
          decoder_->config().hidden_size,
          decoder_->options().dtype};
}

DecodeGraphs::Staged DecodeGraphs::StageRows(const FlatBatch& flat, int64_t rows) {
  std::vector<int64_t> positions(static_cast<size_t>(rows), 0);
  std::transform(flat.positions.begin(), flat.positions.end(), positions.begin(),
                 [](const RopePosition& token) { return token.position; });
  Staged staged;
  staged.tokens = tables_.Add<int64_t>(Padded(flat.tokens, rows, 0));
  staged.slots = tables_.Add<int64_t>(Padded(flat.slots, rows, -1));
  staged.positions = tables_.Add<int64_t>(positions);
  return staged;
}

void DecodeGraphs::Compute(int64_t rows, const Staged& staged, const AdapterDeltas& deltas) {
  DecoderInput input;
  input.tokens = tables_.Indices(staged.tokens);
  input.slots = tables_.Indices(staged.slots);
  input.positions = tables_.Indices(staged.positions);
  std::vector<RopeRows> ropes;
  for (const RopeTable& rope : ropes_) {
    ropes.push_back(rope.At(input.positions));
  }
  input.ropes = ropes;
  std::vector<int64_t> wanted(static_cast<size_t>(rows));
  std::iota(wanted.begin(), wanted.end(), 0);
  input.wanted = wanted;
  DecoderBuffers& buffers = BuffersFor(rows);
  buffers.attention_table = staged.attention;
  const at::Tensor logits = logits_.narrow(0, 0, rows), wide = wide_.narrow(0, 0, rows);
  decoder_->Decode(input, deltas, *cache_, buffers, logits);
  if (!wide_.is_same(logits_)) {
    wide.copy_(logits);
  }
  decoder_->CapLogits(wide);
}

DecoderBuffers& DecodeGraphs::BuffersFor(int64_t rows) {
  const auto found = buffers_.find(rows);
  return found != buffers_.end()
             ? found->second
             : buffers_.emplace(rows, buffers_.at(kMaxRows).First(decoder_->config(), rows))
                   .first->second;
}

void DecodeGraphs::Record(const Shape& shape, const Staged& staged, const AdapterDeltas& deltas) {
  if (graphs_.size() >= kMaxGraphs || !problem_.empty()) {
    return;
  }
  try {
    graphs_.emplace(shape, DeviceGraph(decoder_->options().device,
                                       [&] { Compute(shape.rows, staged, deltas); }));
  } catch (const c10::Error& error) {
    if (++num_failures_ < kMaxFailures) {
      return;
    }
    problem_ = error.what_without_backtrace();
    if (on_problem_) {
      on_problem_(problem_);
    }
  }
}

int64_t DecodeGraphs::nbytes() const {
  const DecoderBuffers& largest = buffers_.at(kMaxRows);
  size_t bytes = tables_.reserved() + (wide_.is_same(logits_) ? 0 : wide_.nbytes());
  for (const at::Tensor* tensor :
       {&logits_, &delta_scratch_, &module_inputs_, &module_values_, &module_inner_, &scaled_,
        &largest.residual, &largest.normed, &largest.out, &largest.qkv, &largest.attention,
        &largest.gate_up, &largest.activated}) {
    bytes += tensor->nbytes();
  }
  return static_cast<int64_t>(bytes);
}

std::optional<at::Tensor> DecodeGraphs::Run(const FlatBatch& flat) {
  if (!Fits(flat)) {
    return std::nullopt;
  }
  const at::Device device = decoder_->options().device;
  AdapterDeltas deltas(flat.segments, KernelKind::kCuda);
  Shape shape;
  shape.rows = RoundUp(std::ssize(flat.rows));
  tables_.Clear();
  Staged staged = StageRows(flat, shape.rows);
  if (!deltas.empty()) {
    shape.groups =
        static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(deltas.num_row_groups())));
    const std::optional<AdapterDeltas::Launches> launches = deltas.PlanFramed(
        decoder_->config().num_layers, decoder_->sites(), FramesFor(shape.groups), tables_, device);
    if (!launches.has_value()) {
      return std::nullopt;
    }
    shape.launches = *launches;
  }
  staged.attention =
      AttentionTable(flat.rows, shape.rows, cache_->block_size(), /*tile_tokens=*/0, tables_);
  if (tables_.size() > tables_.reserved()) {
    return std::nullopt;  // they would move away from where graphs read them
  }
  tables_.Upload();
  if (const auto graph = graphs_.find(shape); graph != graphs_.end()) {
    graph->second.Launch();
    ++num_replays_;
  } else {
    Compute(shape.rows, staged, deltas);
    Record(shape, staged, deltas);
  }
  return wide_.narrow(0, 0, std::ssize(flat.rows));
}

}  // namespace tenon
