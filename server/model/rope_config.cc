#include "server/model/rope_config.h"

#include <cmath>
#include <limits>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "adapters/base/status_macros.h"

namespace tenon {
namespace {

constexpr double kTiny = std::numeric_limits<double>::min();
constexpr double kMaxTheta = 1e12;
constexpr double kMaxFactor = 1e6;
constexpr int64_t kMaxPositions = int64_t{1} << 26;

absl::StatusOr<RopeType> ParseRopeType(JsonFields& fields) {
  TENON_ASSIGN_OR_RETURN(std::optional<std::string> name, fields.OptionalString("rope_type"));
  TENON_ASSIGN_OR_RETURN(const std::optional<std::string> old_name, fields.OptionalString("type"));
  absl::string_view field = "rope_type";
  if (!name.has_value()) {
    name = old_name;
    field = "type";
  }
  if (!name.has_value()) {
    return RopeType::kDefault;
  }
  for (const RopeType type : {RopeType::kDefault, RopeType::kLinear, RopeType::kDynamic,
                              RopeType::kLlama3, RopeType::kYarn}) {
    if (*name == RopeTypeName(type)) {
      return type;
    }
  }
  return fields.NotImplemented(field);
}

// A top-level value wins over the one in the object, and the model's own context length is the
// last resort.
absl::StatusOr<int64_t> OriginalContext(JsonFields& config, JsonFields& fields,
                                        int64_t max_position_embeddings) {
  constexpr absl::string_view kName = "original_max_position_embeddings";
  TENON_ASSIGN_OR_RETURN(const std::optional<int64_t> inner,
                         fields.OptionalInt(kName, 1, kMaxPositions));
  TENON_ASSIGN_OR_RETURN(const std::optional<int64_t> outer,
                         config.OptionalInt(kName, 1, kMaxPositions));
  return outer.value_or(inner.value_or(max_position_embeddings));
}

absl::Status ParseLlama3(JsonFields& fields, RopeConfig& rope) {
  TENON_ASSIGN_OR_RETURN(rope.low_freq_factor,
                         fields.RequiredNumber("low_freq_factor", kTiny, kMaxFactor));
  TENON_ASSIGN_OR_RETURN(rope.high_freq_factor,
                         fields.RequiredNumber("high_freq_factor", kTiny, kMaxFactor));
  if (rope.high_freq_factor <= rope.low_freq_factor) {
    return fields.Invalid("high_freq_factor", "must exceed low_freq_factor");
  }
  return absl::OkStatus();
}

// YaRN's attention temperature (arXiv:2309.00071, section 3.4).
double YarnScale(double factor, double mscale) {
  return factor <= 1.0 ? 1.0 : 0.1 * mscale * std::log(factor) + 1.0;
}

absl::Status ParseYarn(JsonFields& fields, RopeConfig& rope) {
  TENON_ASSIGN_OR_RETURN(const std::optional<double> attention_factor,
                         fields.OptionalNumber("attention_factor", kTiny, kMaxFactor));
  TENON_ASSIGN_OR_RETURN(const std::optional<double> mscale,
                         fields.OptionalNumber("mscale", 0, kMaxFactor));
  TENON_ASSIGN_OR_RETURN(const std::optional<double> mscale_all_dim,
                         fields.OptionalNumber("mscale_all_dim", 0, kMaxFactor));
  TENON_ASSIGN_OR_RETURN(const std::optional<double> beta_fast,
                         fields.OptionalNumber("beta_fast", 0, kMaxFactor));
  TENON_ASSIGN_OR_RETURN(const std::optional<double> beta_slow,
                         fields.OptionalNumber("beta_slow", 0, kMaxFactor));
  TENON_ASSIGN_OR_RETURN(rope.truncate, fields.Bool("truncate", true));
  // Zero means "not given", as Python's `or` reads it.
  rope.beta_fast = beta_fast.value_or(0) != 0 ? *beta_fast : 32.0;
  rope.beta_slow = beta_slow.value_or(0) != 0 ? *beta_slow : 1.0;
  if (rope.beta_fast < rope.beta_slow) {
    return fields.Invalid("beta_fast", "must not be below beta_slow");
  }
  if (attention_factor.has_value()) {
    rope.attention_scaling = *attention_factor;
  } else if (mscale.value_or(0) != 0 && mscale_all_dim.value_or(0) != 0) {
    rope.attention_scaling =
        YarnScale(rope.factor, *mscale) / YarnScale(rope.factor, *mscale_all_dim);
  } else {
    rope.attention_scaling = YarnScale(rope.factor, 1.0);
  }
  return absl::OkStatus();
}

absl::Status ParseFactor(JsonFields& fields, int64_t max_position_embeddings, RopeConfig& rope) {
  TENON_ASSIGN_OR_RETURN(const std::optional<double> factor,
                         fields.OptionalNumber("factor", 1.0, kMaxFactor));
  if (factor.has_value()) {
    rope.factor = *factor;
    return absl::OkStatus();
  }
  if (rope.type != RopeType::kYarn) {
    return fields.Invalid("factor", "missing");
  }
  rope.factor = static_cast<double>(max_position_embeddings) /
                static_cast<double>(rope.original_max_position_embeddings);
  return absl::OkStatus();
}

absl::Status ParseScaling(JsonFields& config, JsonFields& fields, int64_t max_position_embeddings,
                          RopeConfig& rope) {
  if (rope.type == RopeType::kLlama3 || rope.type == RopeType::kYarn) {
    TENON_ASSIGN_OR_RETURN(rope.original_max_position_embeddings,
                           OriginalContext(config, fields, max_position_embeddings));
  }
  if (rope.type == RopeType::kDefault) {
    return absl::OkStatus();
  }
  TENON_RETURN_IF_ERROR(ParseFactor(fields, max_position_embeddings, rope));
  switch (rope.type) {
    case RopeType::kLlama3:
      return ParseLlama3(fields, rope);
    case RopeType::kYarn:
      return ParseYarn(fields, rope);
    case RopeType::kDynamic:
      // The reference stretches from max_position_embeddings and does not read this one.
      fields.Find("original_max_position_embeddings");
      return absl::OkStatus();
    default:
      return absl::OkStatus();
  }
}

// The object in use, or null. Two that contradict each other are an error: transformers takes
// rope_scaling and drops the other silently.
absl::StatusOr<const nlohmann::json*> FindRopeObject(JsonFields& config, absl::string_view& name) {
  const nlohmann::json* scaling = config.Find("rope_scaling");
  const nlohmann::json* parameters = config.Find("rope_parameters");
  if (scaling != nullptr && parameters != nullptr && *scaling != *parameters) {
    return config.Invalid("rope_scaling", "contradicts rope_parameters");
  }
  name = parameters != nullptr ? "rope_parameters" : "rope_scaling";
  const nlohmann::json* object = parameters != nullptr ? parameters : scaling;
  if (object != nullptr && !object->is_object()) {
    return config.Invalid(name, "want an object");
  }
  return object;
}

// What one object says; `rope` holds what is true without it.
absl::Status ParseRopeObject(JsonFields& config, absl::string_view name,
                             const nlohmann::json* object, RopeConfig& rope) {
  if (object == nullptr) {
    return absl::OkStatus();
  }
  JsonFields fields(absl::StrCat(config.where(), ": ", name), object);
  TENON_ASSIGN_OR_RETURN(const std::optional<double> theta,
                         fields.OptionalNumber("rope_theta", kTiny, kMaxTheta));
  rope.theta = theta.value_or(rope.theta);
  TENON_ASSIGN_OR_RETURN(const std::optional<double> partial,
                         fields.OptionalNumber("partial_rotary_factor", 0, 1));
  if (partial.value_or(1.0) != 1.0) {
    return fields.NotImplemented("partial_rotary_factor");
  }
  TENON_ASSIGN_OR_RETURN(rope.type, ParseRopeType(fields));
  TENON_RETURN_IF_ERROR(ParseScaling(config, fields, rope.max_position_embeddings, rope));
  if (const std::vector<std::string> unread = fields.unread(); !unread.empty()) {
    return fields.NotImplemented(unread.front());
  }
  return absl::OkStatus();
}

absl::StatusOr<const nlohmann::json*> FindObject(JsonFields& fields, absl::string_view name) {
  const nlohmann::json* const object = fields.Find(name);
  if (object != nullptr && !object->is_object()) {
    return fields.Invalid(name, "want an object");
  }
  return object;
}

absl::StatusOr<RopeConfig> StartRope(JsonFields& config, absl::string_view theta_field,
                                     double default_theta, int64_t max_position_embeddings) {
  RopeConfig rope;
  rope.max_position_embeddings = max_position_embeddings;
  TENON_ASSIGN_OR_RETURN(const std::optional<double> theta,
                         config.OptionalNumber(theta_field, kTiny, kMaxTheta));
  rope.theta = theta.value_or(default_theta);
  return rope;
}

}  // namespace

absl::StatusOr<RopeConfig> ParseRopeConfig(JsonFields& config, int64_t max_position_embeddings) {
  TENON_ASSIGN_OR_RETURN(RopeConfig rope,
                         StartRope(config, "rope_theta", 10000.0, max_position_embeddings));
  absl::string_view name;
  TENON_ASSIGN_OR_RETURN(const nlohmann::json* object, FindRopeObject(config, name));
  TENON_RETURN_IF_ERROR(ParseRopeObject(config, name, object, rope));
  return rope;
}

absl::StatusOr<std::vector<RopeConfig>> ParseLayerRopeConfigs(JsonFields& config,
                                                              int64_t max_position_embeddings) {
  TENON_ASSIGN_OR_RETURN(RopeConfig full,
                         StartRope(config, "rope_theta", 1e6, max_position_embeddings));
  TENON_ASSIGN_OR_RETURN(RopeConfig sliding,
                         StartRope(config, "rope_local_base_freq", 1e4, max_position_embeddings));
  TENON_ASSIGN_OR_RETURN(const nlohmann::json* scaling, FindObject(config, "rope_scaling"));
  TENON_ASSIGN_OR_RETURN(const nlohmann::json* parameters, FindObject(config, "rope_parameters"));
  if (parameters == nullptr) {
    TENON_RETURN_IF_ERROR(ParseRopeObject(config, "rope_scaling", scaling, full));
    return std::vector<RopeConfig>{full, sliding};
  }
  if (scaling != nullptr) {
    return config.Invalid("rope_scaling", "contradicts rope_parameters");
  }
  JsonFields types(absl::StrCat(config.where(), ": rope_parameters"), parameters);
  TENON_ASSIGN_OR_RETURN(const nlohmann::json* of_full, FindObject(types, "full_attention"));
  TENON_ASSIGN_OR_RETURN(const nlohmann::json* of_sliding, FindObject(types, "sliding_attention"));
  if (const std::vector<std::string> unread = types.unread(); !unread.empty()) {
    return types.NotImplemented(unread.front());
  }
  TENON_RETURN_IF_ERROR(ParseRopeObject(config, "rope_parameters: full_attention", of_full, full));
  TENON_RETURN_IF_ERROR(
      ParseRopeObject(config, "rope_parameters: sliding_attention", of_sliding, sliding));
  return std::vector<RopeConfig>{full, sliding};
}

}  // namespace tenon
