// DecodeGraphs: steps that decode, recorded once for each shape and replayed.
#ifndef TENON_SERVER_MODEL_DECODE_GRAPHS_H_
#define TENON_SERVER_MODEL_DECODE_GRAPHS_H_

#include <ATen/core/Tensor.h>

#include <compare>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "adapters/kernels/device_tables.h"
#include "server/kernels/device_graph.h"
#include "server/model/adapter_deltas.h"
#include "server/model/decoder.h"
#include "server/model/decoder_buffers.h"
#include "server/model/flat_batch.h"
#include "server/model/kv_cache.h"
#include "server/model/rope_table.h"

namespace tenon {

/// The forward passes of steps in which every row has one token, as CUDA graphs. A graph is made
/// for a number of rows, rounded up, a number of row groups of adapters, rounded up, and the places
/// where adapters change something; which adapters these are stands in the tables that a replay
/// reads. So an adapter that comes, goes or is replaced by another version needs no new graph.
///
/// The first step of a shape runs operation by operation and is recorded for those that follow. A
/// recording that fails is tried again at the shape's next step, since a thread that loads an
/// adapter meanwhile may be the reason; after some failures no more are made.
///
/// Not thread-safe (engine thread). Steps run on LibTorch's current stream, which is always the
/// same, never the default one, and has done its work when the next step comes.
class DecodeGraphs {
 public:
  /// What is borrowed stays where it is. A sequence has fewer than `max_positions` positions.
  DecodeGraphs(const Decoder* decoder, const KvCache* cache, std::span<const RopeTable> ropes,
               int64_t max_positions);

  /// Is told, once and on the engine thread, why no more graphs are made.
  void set_on_problem(std::function<void(const std::string&)> on_problem) {
    on_problem_ = std::move(on_problem);
  }

  /// The logits [R, vocab] fp32 of the step's rows, good until the next step; nothing when it is
  /// none that graphs are for: one with prompts, merged weights, more than kMaxRows rows, or
  /// adapters that do not go into a framed plan (AdapterDeltas::PlanFramed). Throws c10::Error.
  std::optional<at::Tensor> Run(const FlatBatch& flat);

  /// The most rows of a step that is recorded.
  static constexpr int64_t kMaxRows = 64;

  int64_t num_graphs() const { return static_cast<int64_t>(graphs_.size()); }
  int64_t num_replays() const { return num_replays_; }
  /// Why no more graphs are made; empty as long as they are.
  const std::string& problem() const { return problem_; }
  /// Bytes of device memory beside LibTorch's own for graphs.
  int64_t nbytes() const;

 private:
  struct Shape {
    int64_t rows = 0, groups = 0;
    AdapterDeltas::Launches launches;
    friend auto operator<=>(const Shape&, const Shape&) = default;
  };
  /// What a step reads, staged.
  struct Staged {
    DeviceTable<int64_t> tokens, slots, positions;
    AttentionTable attention;
  };

  bool Fits(const FlatBatch& flat) const;
  AdapterDeltas::Frames FramesFor(int64_t groups) const;
  size_t TableBytes(int64_t max_positions) const;
  /// Tokens, slots and positions, padded to that many rows with such as leave no trace.
  Staged StageRows(const FlatBatch& flat, int64_t rows);
  DecoderBuffers& BuffersFor(int64_t rows);
  /// The forward pass of what is staged, run or recorded.
  void Compute(int64_t rows, const Staged& staged, const AdapterDeltas& deltas);
  void Record(const Shape& shape, const Staged& staged, const AdapterDeltas& deltas);

  const Decoder* const decoder_;
  const KvCache* const cache_;
  const std::span<const RopeTable> ropes_;
  DeviceTables tables_;
  // By number of rows: views of the memory of the largest.
  std::map<int64_t, DecoderBuffers> buffers_;
  at::Tensor logits_;  // [kMaxRows, vocab]
  at::Tensor wide_;    // the same in fp32; logits_ itself for an fp32 decoder
  at::Tensor delta_scratch_, module_inputs_, module_values_, module_inner_;
  at::Tensor scaled_;
  int64_t widest_ = 0;  // columns of what adapters scale or shift
  std::map<Shape, DeviceGraph> graphs_;
  std::function<void(const std::string&)> on_problem_;
  std::string problem_;
  int64_t num_failures_ = 0;
  int64_t num_replays_ = 0;
};

}  // namespace tenon

#endif  // TENON_SERVER_MODEL_DECODE_GRAPHS_H_
