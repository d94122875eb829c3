// RopeTable: the cosines and sines of rotary embeddings.
#ifndef TENON_SERVER_MODEL_ROPE_TABLE_H_
#define TENON_SERVER_MODEL_ROPE_TABLE_H_

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "server/kernels/rope.h"
#include "server/model/model_config.h"

namespace tenon {

/// Where a token stands: its position, and how long its sequence was when the token was computed
/// (the prompt's length for a prompt token, position + 1 for a generated one).
struct RopePosition {
  int64_t position = 0;
  int64_t length = 0;
};

/// The inverse frequencies of one head, fp32 [head_dim / 2], as transformers 5.23 computes them in
/// modeling_rope_utils.py, operation by operation in fp32. `length` matters to kDynamic alone.
std::vector<float> RopeInverseFrequencies(const RopeConfig& config, int64_t length);

/// Rotations of one rope, worked out once for all positions.
///
/// Thread-safe: immutable.
///
/// Dynamic NTK scaling stretches the frequencies with the length of the sequence. The reference
/// keeps one set per model and recomputes it when a forward pass is longer than any before, while
/// cached keys keep the rotation they had. Tenon gives each sequence what it would get there alone:
/// prompt tokens are rotated for the prompt's length, each generated token for its own position
/// + 1. A token's rotation is thus a function of its position and the prompt's length, whatever the
/// batch, the chunking, or a recomputation after preemption. But beyond max_position_embeddings the
/// same tokens have other keys under another prompt length, so KV blocks must not be shared between
/// sequences then: see depends_on_length().
class RopeTable {
 public:
  RopeTable() = default;  ///< of no use but to be assigned to
  /// Holds positions below `max_positions`: max_positions * head_dim * 4 bytes on `device`.
  RopeTable(const RopeConfig& config, int64_t max_positions, at::Device device = at::kCPU);

  /// The rotations of a step, on the table's device. Every position is in [0, max_positions), every
  /// length > 0.
  RopeRows Select(std::span<const RopePosition> tokens) const;

  /// The same of positions [T] int64 on the table's device, of tokens that do not stretch it.
  RopeRows At(const at::Tensor& positions) const { return {cos_, sin_, positions}; }
  /// Whether a token's length gives it other rotations than its position alone (kDynamic).
  bool Stretches(std::span<const RopePosition> tokens) const;

  int64_t max_positions() const { return max_positions_; }
  /// Whether equal tokens at equal positions can have different keys (kDynamic).
  bool depends_on_length() const { return config_.type == RopeType::kDynamic; }

 private:
  void FillRow(const std::vector<float>& inv_freq, int64_t position, float* cos, float* sin) const;
  RopeRows SelectStretched(std::span<const RopePosition> tokens) const;

  RopeConfig config_;
  int64_t max_positions_ = 0;
  at::Tensor cos_;  // [max_positions, head_dim / 2] fp32
  at::Tensor sin_;
};

}  // namespace tenon

#endif  // TENON_SERVER_MODEL_ROPE_TABLE_H_
