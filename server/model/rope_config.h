// The part of config.json that describes rotary embeddings, in the spellings that transformers has
// had for it.
#ifndef TENON_SERVER_MODEL_ROPE_CONFIG_H_
#define TENON_SERVER_MODEL_ROPE_CONFIG_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "server/model/json_fields.h"
#include "server/model/model_config.h"

namespace tenon {

/// Reads `rope_parameters` (transformers 5), or `rope_scaling` and `rope_theta` (transformers 4),
/// from the top level of config.json, with the precedence that transformers 5.23 gives them
/// (modeling_rope_utils.py, RotaryEmbeddingConfigMixin). Keys that the rope type does not use, and
/// types other than RopeType's, are refused by name.
absl::StatusOr<RopeConfig> ParseRopeConfig(JsonFields& config, int64_t max_position_embeddings);

/// Indices into what ParseLayerRopeConfigs returns.
inline constexpr size_t kFullRope = 0;
inline constexpr size_t kSlidingRope = 1;

/// The two of a model whose sliding layers have a rope of their own (Gemma 3): one object for each
/// in `rope_parameters`, or `rope_scaling` and `rope_theta` for the full layers and
/// `rope_local_base_freq` for the sliding ones.
absl::StatusOr<std::vector<RopeConfig>> ParseLayerRopeConfigs(JsonFields& config,
                                                              int64_t max_position_embeddings);

}  // namespace tenon

#endif  // TENON_SERVER_MODEL_ROPE_CONFIG_H_
