// ModelFamily: what the architectures that share the decoder do differently.
#ifndef TENON_SERVER_MODEL_MODEL_FAMILY_H_
#define TENON_SERVER_MODEL_MODEL_FAMILY_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/model/json_fields.h"
#include "server/model/model_config.h"

namespace tenon {

/// The names that a family's config.json gives to the sizes.
struct SizeFields {
  absl::string_view hidden_size = "hidden_size";
  absl::string_view intermediate_size = "intermediate_size";
  absl::string_view num_layers = "num_hidden_layers";
  absl::string_view num_heads = "num_attention_heads";
  absl::string_view max_positions = "max_position_embeddings";
  absl::string_view norm_eps = "rms_norm_eps";
};

/// How one model_type is read: by name, what transformers 5.23 fills in for fields that are absent,
/// and a function for what is its own.
struct ModelFamily {
  absl::string_view model_type;
  absl::string_view architecture;  ///< of the causal language model
  ModulePaths modules;
  SizeFields sizes = {};
  absl::string_view activation_field = "hidden_act";
  absl::string_view default_activation = "silu";
  NormKind norm = NormKind::kRms;
  double default_norm_eps = 1e-6;
  int64_t default_mlp_ratio = 0;  ///< intermediate over hidden size; 0 when it has to be given
  bool ties_by_default = false;
  /// Whether the default of num_key_value_heads or head_dim is a number of the family's largest
  /// model: such a field has to be given.
  bool requires_kv_heads = true;
  bool requires_head_dim = false;
  /// Reads biases, positions, windows, scales: everything in ModelConfig that is not a size, a
  /// dtype or a token. The sizes are known.
  absl::Status (*read_block)(JsonFields& fields, ModelConfig& config);
};

/// The family of config.json's model_type. INVALID_ARGUMENT when missing, FAILED_PRECONDITION when
/// not implemented.
absl::StatusOr<const ModelFamily*> FindModelFamily(JsonFields& fields);

}  // namespace tenon

#endif  // TENON_SERVER_MODEL_MODEL_FAMILY_H_
