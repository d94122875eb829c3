// BaseShape: what an adapter compiler needs to know of the base model. Made by server/model from
// the config.
#ifndef TENON_ADAPTERS_METHODS_BASE_SHAPE_H_
#define TENON_ADAPTERS_METHODS_BASE_SHAPE_H_

#include <array>
#include <cstdint>
#include <string>

#include "absl/container/flat_hash_map.h"

namespace tenon {

/// Where in a decoder layer a delta acts: the linear layers of a Llama-family block.
enum class Site : uint8_t { kQ, kK, kV, kO, kGate, kUp, kDown };
inline constexpr int kNumSites = 7;

/// One linear layer that adapters may target.
struct SiteShape {
  int64_t layer = 0;
  Site site = Site::kQ;
  int64_t in_features = 0;
  int64_t out_features = 0;
};

struct BaseShape {
  std::string model_type;  ///< config.json "model_type"
  std::string digest;      ///< identifies the base weights
  int64_t num_layers = 0;
  int64_t hidden_size = 0;
  int64_t vocab_size = 0;
  /// Full module path, as in the checkpoint without ".weight" ("model.layers.0.self_attn.q_proj"),
  /// -> the site.
  absl::flat_hash_map<std::string, SiteShape> modules;
};

}  // namespace tenon

#endif  // TENON_ADAPTERS_METHODS_BASE_SHAPE_H_
